import json
import random

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.conftest import ROOT, default_params
from vlmr1.files import whole_folder
from vlmr1.recipes import apply
from vlmr1.settings import OvdSplit, OvdWorld, Params, RecWorld, World, load_params
from vlmr1.work import fingerprint_of
from vlmr1.world.dataset import lists, write_world
from vlmr1.world.expressions import KINDS, describe, describe_nothing
from vlmr1.world.scenes import COLOURS, GROUND, MORE_SHAPES, SHAPES, SIDE, Layout, Thing, compose, draw

DEFAULT = Params.model_validate(YAML(typ="safe").load(default_params()))


SPLITS = DEFAULT.world.rec.splits


def world(splits, seed=0):
    return World(seed=seed, rec=RecWorld(splits=splits), ovd=None, math=None, gui=None)


def small(seed=0, pictures=6):
    return world({n: s.model_copy(update={"pictures": pictures}) for n, s in SPLITS.items()}, seed)


@pytest.mark.parametrize("shape", SHAPES + MORE_SHAPES)
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


def test_an_expression_without_a_target_holds_for_nothing():
    rng = random.Random(1)
    colours = ("red", "green", "blue")
    kinds = set()
    for _ in range(600):
        scene = compose(rng, Layout((1, 3), colours, (21, 42), 7), "names")
        text = scene and describe_nothing(rng, scene, colours)
        if not text:
            continue
        assert not [t for t in scene if meant(text, t, scene)], (text, scene)
        words = set(text.split()) - {"the", "object"}
        kinds.add("relation" if words & {"left", "right", "above", "below"} else len(words))
        if kinds == {"relation"} or len(words) == 2:
            assert any(words & {t.colour, t.shape} for t in scene)  # near enough to be looked for
    assert kinds == {"relation", 1, 2}


def meant(text, thing, scene):
    """A second reading of the phrases, from their words."""
    if " other than the " in text:
        sort, left_out = text.removeprefix("the ").split(" other than the ")
        named = set(left_out.split()) - {"one"} | set(sort.split()) - {"object"}
        (spared,) = [t for t in scene if named <= {t.colour, t.shape}]
        return thing is not spared and set(sort.split()) - {"object"} <= {thing.colour, thing.shape}
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
            write_world(small(seed), folder, lambda _: None)
    assert fingerprint_of(tmp_path / "a") == fingerprint_of(tmp_path / "b") != fingerprint_of(tmp_path / "c")


def test_the_files_are_cocos_and_refcocos(tmp_path):
    with whole_folder(tmp_path / "w") as folder:
        counts = write_world(small(), folder, lambda _: None)
    refs = json.loads((tmp_path / "w/rec/refs.json").read_text())
    instances = json.loads((tmp_path / "w/rec/instances.json").read_text())
    nothing = json.loads((tmp_path / "w/rec/no_target.json").read_text())
    assert counts == {f"rec/refs.json {n}": 6 for n in SPLITS if n != "no_target"} | {"rec/no_target.json": 6}
    assert list(lists(small()).values()) == [6] * len(SPLITS)
    assert len(refs) == sum(counts.values()) - len(nothing) == len(instances["images"])
    assert all(row["normal_caption"] for row in nothing)
    assert {"ref_id", "ann_id", "image_id", "category_id", "split", "file_name", "sent_ids", "sentences"} == set(
        refs[0]
    )
    assert {"id", "image_id", "category_id", "bbox", "area", "iscrowd"} == set(instances["annotations"][0])
    with Image.open(tmp_path / "w/rec/images" / refs[0]["file_name"]) as picture:
        assert picture.size == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pictures": 200, "sides": (112, 112)}, r"world\.rec\.splits\.tight: no new picture"),
        ({"objects": (3, 3), "sides": (70, 70)}, r"world\.rec\.splits\.tight: no new picture"),
        ({"colours": ("purple",)}, r"world\.rec\.splits\.tight\.colours: purple is none of red"),
        ({"sides": (112, 140)}, r"world\.rec\.splits\.tight\.sides: pictures are 112"),
    ],
)
def test_an_impossible_layout_is_refused_by_name(tmp_path, change, said):
    split = SPLITS["in_domain"].model_copy(update=change)
    with pytest.raises(ValueError, match=said), whole_folder(tmp_path / "w") as folder:
        write_world(world({"tight": split}), folder, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_split_may_mix_expressions_with_a_target_and_without(tmp_path):
    split = SPLITS["no_target"].model_copy(update={"pictures": 30, "expressions": ("attribute", "no_target")})
    with whole_folder(tmp_path / "w") as folder:
        write_world(world({"mixed": split}), folder, lambda _: None)
    rows = json.loads((tmp_path / "w/rec/mixed.json").read_text())
    targets = [row["solution"] for row in rows if row["solution"]]
    assert 5 < len(targets) < 25
    for row in rows:
        with Image.open(tmp_path / "w/rec/images" / row["image"]) as picture:
            colours = {tuple(c) for _, c in picture.getcolors()}
        words = row["normal_caption"].split()
        if row["solution"]:
            assert all(COLOURS[w] in colours for w in words if w in COLOURS)
            assert row["normalized_solution"] == [1000 * v // SIDE for v in row["solution"]]


@pytest.mark.parametrize("recipe", [None, "smoke", "world-ovd", "world-math", "world-gui"])
def test_the_sources_of_a_recipe_are_lists_that_its_world_draws(tmp_path, recipe):
    params = tmp_path / "params.yaml"
    params.write_text(default_params())
    if recipe:
        apply(ROOT / f"recipes/{recipe}.yaml", [], params)
    settings = load_params(params)
    drawn = lists(settings.world)
    assert {(s.annotations, getattr(s, "split", None)) for s in settings.data.sources.values()} == set(drawn)
    assert all(s.images == f"{s.annotations.split('/')[0]}/images" for s in settings.data.sources.values())


def test_the_split_without_targets_has_some_so_that_none_is_not_always_right(tmp_path):
    split = SPLITS["no_target"].model_copy(update={"pictures": 100})
    with whole_folder(tmp_path / "w") as folder:
        write_world(world({"no_target": split}), folder, lambda _: None)
    rows = json.loads((tmp_path / "w/rec/no_target.json").read_text())
    assert 30 < sum(row["solution"] is None for row in rows) < 70


def test_worlds_that_are_drawn_together_share_no_picture(tmp_path):
    """Few things at few places, so that two worlds that did not look at each other would draw the same."""
    rec = SPLITS["train"].model_copy(update={"pictures": 40, "sides": (56, 56), "grid": 14})
    ovd = OvdSplit(
        pictures=40, objects=(1, 1), colours=rec.colours, sides=(56, 56), grid=14,
        shapes=SHAPES, held_out=(), draw="known", asked=(1, 1), negatives=(1, 1), empty=0.0,
    )  # fmt: skip
    both = World(seed=0, rec=RecWorld(splits={"a": rec}), ovd=OvdWorld(splits={"a": ovd}), math=None, gui=None)
    with whole_folder(tmp_path / "w") as folder:
        write_world(both, folder, lambda _: None)
    pictures = [Image.open(path).tobytes() for path in (tmp_path / "w").rglob("*.png")]
    assert len(pictures) == len(set(pictures)) == 80
