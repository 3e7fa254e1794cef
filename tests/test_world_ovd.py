"""The embedded world of detection: what is asked for is there or is not, as the pixels say."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlmr1.files import whole_folder
from vlmr1.settings import OvdSplit, OvdWorld, World
from vlmr1.work import fingerprint_of
from vlmr1.world.dataset import lists, write_world
from vlmr1.world.scenes import COLOURS, GROUND

HELD_OUT = ("red cross", "green frame", "blue square")
SPLIT = OvdSplit(
    pictures=60,
    objects=(1, 4),
    colours=("red", "green", "blue"),
    shapes=("square", "disc", "cross", "frame"),
    sides=(21, 35),
    grid=7,
    held_out=HELD_OUT,
    draw="known",
    asked=(1, 2),
    negatives=(1, 2),
    empty=0.25,
)
SPLITS = {"train": SPLIT, "test": SPLIT, "held_out": SPLIT.model_copy(update={"draw": "held_out"})}
WORLD = World(seed=3, rec=None, ovd=OvdWorld(splits=SPLITS), math=None, gui=None)
FILLED = {"square": 1.0, "disc": 0.79, "cross": 0.55, "frame": 0.87}  # share of its box that a shape fills


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ovd") / "w"
    with whole_folder(path) as temporary:
        write_world(WORLD, temporary, lambda _: None)
    return path / "ovd"


def read(folder, split):
    """The list of a split: [(picture, its true (name, box)s, the picture's entry)]."""
    data = json.loads((folder / f"{split}.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    for entry in data["images"]:
        mine = [a for a in data["annotations"] if a["image_id"] == entry["id"]]
        boxes = {(names[a["category_id"]], tuple(a["bbox"])) for a in mine}
        assert mine == sorted(mine, key=lambda a: a["bbox"][:2])  # left to right
        assert len(boxes) == len(mine) and all(a["area"] == a["bbox"][2] * a["bbox"][3] for a in mine)
        with Image.open(folder / "images" / entry["file_name"]) as picture:
            yield picture.convert("RGB"), boxes, entry


def seen(picture):
    """What a picture shows, from its pixels alone: (name, (x, y, width, height)) of every patch of one colour."""
    left, found = picture.copy(), set()
    while True:
        pixels = np.asarray(left)
        rows, columns = np.nonzero((pixels != GROUND).any(axis=2))
        if not len(rows):
            return found
        first = (int(columns[0]), int(rows[0]))
        rgb = left.getpixel(first)
        ImageDraw.floodfill(left, first, GROUND)
        rows, columns = np.nonzero((pixels != np.asarray(left)).any(axis=2))
        x, y = int(columns.min()), int(rows.min())
        w, h = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
        shape = min(FILLED, key=lambda name: abs(FILLED[name] - len(rows) / (w * h)))
        colour = next(name for name, value in COLOURS.items() if value == rgb)
        found.add((f"{colour} {shape}", (x, y, w, h)))


@pytest.mark.parametrize("split", SPLITS)
def test_the_answers_are_what_the_pixels_show(folder, split):
    empty = 0
    for picture, boxes, entry in read(folder, split):
        shown = seen(picture)
        there = {name for name, _ in shown}
        present, absent = entry["text"], entry["neg_text"]
        assert boxes == {(name, box) for name, box in shown if name in present}
        assert set(present) <= there and not set(absent) & there
        assert len(set(present + absent)) == len(present + absent) > 0
        assert all(set(name.split()) & {word for other in there for word in other.split()} for name in absent)
        empty += not present
    assert 5 <= empty <= 25


def test_the_number_of_names_does_not_tell_an_empty_picture(tmp_path):
    one = SPLIT.model_copy(update={"objects": (1, 1), "asked": (1, 1), "pictures": 120})
    with whole_folder(tmp_path / "w") as temporary:
        world = World(seed=3, rec=None, ovd=OvdWorld(splits={"one": one}), math=None, gui=None)
        write_world(world, temporary, lambda _: None)
    asked = {True: set(), False: set()}
    for _, boxes, entry in read(tmp_path / "w" / "ovd", "one"):
        asked[bool(boxes)].add(len(entry["text"] + entry["neg_text"]))
    assert asked[True] == asked[False] == {2, 3}


def test_held_out_categories_are_drawn_in_their_split_alone(folder):
    for split in SPLITS:
        for picture, _, entry in read(folder, split):
            there = {name for name, _ in seen(picture)}
            if split == "held_out":
                assert there <= set(HELD_OUT)
            else:
                assert not (there | set(entry["text"]) | set(entry["neg_text"])) & set(HELD_OUT)


def test_a_category_may_be_there_more_than_once_and_pictures_are_new(folder):
    pictures, several = set(), 0
    for split in SPLITS:
        for picture, boxes, _ in read(folder, split):
            pictures.add(picture.tobytes())
            several += len({name for name, _ in boxes}) < len(boxes)
    assert len(pictures) == 3 * 60 == sum(lists(WORLD).values())
    assert several > 5


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    with whole_folder(tmp_path / "again") as temporary:
        write_world(WORLD, temporary, lambda _: None)
    assert fingerprint_of(folder.parent) == fingerprint_of(tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"asked": (0, 1)}, "asked: fewest and most, at least 1"),
        ({"held_out": ("red star",)}, "held_out: red star is no colour and shape"),
        ({"held_out": (), "draw": "held_out"}, "held_out: at least one category to draw"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        OvdSplit.model_validate(SPLIT.model_dump() | change)


def test_an_impossible_layout_is_refused_by_name(tmp_path):
    splits = {"tight": SPLIT.model_copy(update={"objects": (4, 4), "sides": (84, 112)})}
    world = WORLD.model_copy(update={"ovd": OvdWorld(splits=splits)})
    with (
        pytest.raises(ValueError, match=r"world\.ovd\.splits\.tight: no new picture"),
        whole_folder(tmp_path / "w") as f,
    ):
        write_world(world, f, lambda _: None)
