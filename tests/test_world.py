import json
import random

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.conftest import default_params
from vlmr1.files import whole_folder
from vlmr1.settings import Params, World
from vlmr1.work import fingerprint_of
from vlmr1.world.dataset import write_world
from vlmr1.world.expressions import KINDS, describe
from vlmr1.world.scenes import COLOURS, GROUND, SHAPES, SIDE, Layout, Thing, compose, draw

DEFAULT = Params.model_validate(YAML(typ="safe").load(default_params()))


def small(seed=0, pictures=6):
    splits = DEFAULT.world.splits
    return World(seed=seed, splits={n: s.model_copy(update={"pictures": pictures}) for n, s in splits.items()})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [21, 34, 70])
def test_a_box_is_the_exact_bound_of_what_is_drawn(shape, side):
    thing = Thing(shape, "red", (14, 21, 14 + side, 21 + side))
    pixels = np.asarray(draw([thing]))
    rows, columns = np.nonzero((pixels != GROUND).any(axis=2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == thing.box


@pytest.mark.parametrize("kind", KINDS)
def test_an_expression_holds_for_its_target_alone(kind):
    """Judged here by other means than the world's predicates: the words against the scene."""
    rng = random.Random(1)
    layout = Layout((2, 3), ("red", "green", "blue"), (21, 42), 7)
    told = 0
    for _ in range(600):
        scene = compose(rng, layout, "names")
        if scene is None:
            continue
        target = rng.choice(scene)
        text = describe(rng, target, scene, kind)
        if text is None:
            continue
        told += 1
        assert [t for t in scene if meant(text, t, scene)] == [target], (text, scene)
    assert told > 50


def meant(text, thing, scene):
    """A second reading of the phrases, from their words."""
    words = text.split()
    if "not" in words:
        return words[-1] not in (thing.colour, thing.shape)
    if words[-2:-1] == ["the"] and words[-1] in ("left", "right", "top", "bottom"):
        x, y = thing.centre[0] - SIDE / 2, thing.centre[1] - SIDE / 2
        return {"left": x < 0, "right": x > 0, "top": y < 0, "bottom": y > 0}[words[-1]]
    side = next((w for w in ("left", "right", "above", "below") if w in words), None)
    if side:
        other = next(t for t in scene if t.name == " ".join(words[-2:]))
        if other is thing:
            return False
        x, y = (a - b for a, b in zip(thing.centre, other.centre, strict=True))
        return {"left": x <= 0, "right": x >= 0, "above": y <= 0, "below": y >= 0}[side]
    best = {
        "largest": max(scene, key=lambda t: t.side),
        "smallest": min(scene, key=lambda t: t.side),
        "leftmost": min(scene, key=lambda t: t.box[0] + t.box[2]),
        "rightmost": max(scene, key=lambda t: t.box[0] + t.box[2]),
        "topmost": min(scene, key=lambda t: t.box[1] + t.box[3]),
        "bottommost": max(scene, key=lambda t: t.box[1] + t.box[3]),
    }.get(words[1])
    if best:
        edge = {
            "leftmost": -thing.box[0],
            "rightmost": thing.box[2],
            "topmost": -thing.box[1],
            "bottommost": thing.box[3],
        }
        for other in scene if words[1] in edge else ():
            theirs = {"leftmost": -other.box[0], "rightmost": other.box[2], "topmost": -other.box[1]}
            assert edge[words[1]] >= theirs.get(words[1], other.box[3]) or thing is not best
        return thing is best
    return all(w in ("the", "object", thing.colour, thing.shape) for w in words)


def test_things_do_not_touch_and_stay_inside():
    rng = random.Random(2)
    for _ in range(100):
        scene = compose(rng, Layout((2, 3), tuple(COLOURS), (21, 42), 1), "colours")
        if scene is None:
            continue
        assert len({t.colour for t in scene}) == len(scene)
        for i, a in enumerate(scene):
            assert 0 <= a.box[0] < a.box[2] <= SIDE and 0 <= a.box[1] < a.box[3] <= SIDE
            for b in scene[:i]:
                assert a.box[2] <= b.box[0] or b.box[2] <= a.box[0] or a.box[3] <= b.box[1] or b.box[3] <= a.box[1]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with whole_folder(tmp_path / name) as folder:
            write_world(small(seed), folder, lambda *_: None)
    assert fingerprint_of(tmp_path / "a") == fingerprint_of(tmp_path / "b") != fingerprint_of(tmp_path / "c")


def test_the_files_are_cocos_and_refcocos(tmp_path):
    with whole_folder(tmp_path / "w") as folder:
        counts = write_world(small(), folder, lambda *_: None)
    refs = json.loads((tmp_path / "w/refs.json").read_text())
    instances = json.loads((tmp_path / "w/instances.json").read_text())
    assert len(refs) == sum(counts.values()) == len(instances["images"])
    assert {"ref_id", "ann_id", "image_id", "category_id", "split", "file_name", "sent_ids", "sentences"} == set(
        refs[0]
    )
    assert {"id", "image_id", "category_id", "bbox", "area", "iscrowd"} == set(instances["annotations"][0])
    with Image.open(tmp_path / "w/images" / refs[0]["file_name"]) as picture:
        assert picture.size == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pictures": 200, "sides": (112, 112)}, r"world\.splits\.tight: no new picture"),
        ({"objects": (3, 3), "sides": (70, 70)}, r"world\.splits\.tight: no new picture"),
        ({"colours": ("purple",)}, r"world\.splits\.tight\.colours: purple is none of red"),
        ({"sides": (112, 140)}, r"world\.splits\.tight\.sides: pictures are 112"),
    ],
)
def test_an_impossible_layout_is_refused_by_name(tmp_path, change, said):
    split = DEFAULT.world.splits["in_domain"].model_copy(update=change)
    with pytest.raises(ValueError, match=said), whole_folder(tmp_path / "w") as folder:
        write_world(World(seed=0, splits={"tight": split}), folder, lambda *_: None)
    assert list(tmp_path.iterdir()) == []
