"""Validation: every rule on a row that breaks it alone, the suite in a process of its own, the reports, the balance."""

import json
import os
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from tests.conftest import ROOT, default_params
from vlmr1 import pictures
from vlmr1.rewards import Reward
from vlmr1.rows import Row
from vlmr1.settings import Validate, load_params
from vlmr1.settings.data import Rule
from vlmr1.settings.sources import Gui, Jsonl
from vlmr1.settings.world import Label
from vlmr1.tasks import gui, math
from vlmr1.validation.baselines import Balance
from vlmr1.validation.gallery import Gallery
from vlmr1.validation.pictures import Looks, Near, difference_hash, facts_of
from vlmr1.validation.rules import Desk, Offence, Suite, rules
from vlmr1.validation.table import Repeats, columns

pytest.importorskip("great_expectations")

SETTINGS = load_params(ROOT / "params.yaml").validate_.model_copy(
    update={"workers": 1, "decode": "full", "max_picture_pixels": 20_000, "max_text": 100}
)
SIZE = (100, 80)
TRAIN = Jsonl(format="jsonl", role="train", annotations="t", images="images", frame="pixels", task=None, reward=None)
EVALUATE = TRAIN.model_copy(update={"role": "evaluate"})
BOX = (10.0, 20.0, 60.0, 70.0)


@pytest.fixture(scope="module")
def suite():
    return Suite(SETTINGS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with a picture for every fault."""
    root = tmp_path_factory.mktemp("data")
    images = root / "images"
    images.mkdir()
    gradient = Image.linear_gradient("L").resize(SIZE)
    for name, turn in (("a", 0), ("b", 90), ("c", 180)):
        gradient.rotate(turn).resize(SIZE).convert("RGB").save(images / f"{name}.png")
    (images / "copy.png").write_bytes((images / "b.png").read_bytes())
    near = Image.open(images / "b.png")
    near.putpixel((3, 3), (9, 9, 9))
    near.save(images / "near.png")
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:60])
    Image.new("RGB", (200, 150)).save(images / "large.png")
    Image.new("RGB", SIZE).save(images / "old.gif")
    Image.new("RGBA", SIZE).save(images / "clear.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", SIZE, (9, 99, 9)).save(images / "turned.jpg", exif=exif)
    (images / "out.png").symlink_to("/etc/hostname")
    return root


def rec(row=1, image="a.png", text="a cat", box=BOX, size=SIZE, **more):
    return Row(row, (image,), (size,), "rec", "iou", text, () if box is None else (box,), **more)


def question(row=1, **more):
    given = {"images": ("a.png",), "sizes": (SIZE,), "task": "math", "reward": "numeric", "text": "how many?"}
    return Row(row, **{**given, "answer": "4", **more})


def ovd(row=1, **more):
    given = {"boxes": (BOX,), "labels": ("cat",), "asked": ("cat", "dog")}
    return Row(row, ("a.png",), (SIZE,), "ovd", "odLength", **{**given, **more})


def found(suite, root, rows, settings=SETTINGS, evaluated=()):
    """(row, rule) of every offence of training rows beside rows that evaluation asks about."""
    looks, repeats = Looks(settings), Repeats()
    looks.look(root / "images", [*rows, *evaluated], lambda n: None)
    columns("e", EVALUATE, root, list(evaluated), looks, repeats)
    return {(o.row, o.rule) for o in suite.run(columns("t", TRAIN, root, rows, looks, repeats))}


NAN = float("nan")
FAULTS = {
    "reads": [Row(1, (), (), "rec", "iou", fault="t.jsonl:2: no bbox; mend or remove it")],
    "path": [rec(image="../params.yaml"), rec(image="/etc/hostname"), rec(image="out.png")],
    "exists": [rec(image="nowhere.png")],
    "opens": [rec(image="broken.png")],
    "pixels": [rec(image="large.png", size=(200, 150))],
    "format": [rec(image="old.gif")],
    "mode": [rec(image="clear.png")],
    "upright": [rec(image="turned.jpg")],
    "size": [rec(size=(80, 100), box=(1.0, 2.0, 30.0, 40.0))],
    "text": [rec(text="  "), ovd(asked=(), boxes=(), labels=()), question(text="")],
    "text_length": [rec(text="cat " * 40)],
    "places": [question(text="<image> or <image>?")],
    "box_finite": [rec(box=(NAN, 0, 50, 50)), rec(box=(0, 0, float("inf"), 50))],
    "box_left": [rec(box=(-9, 0, 50, 50)), ovd(boxes=(BOX, (-9.0, 0.0, 5.0, 5.0)), labels=("cat", "cat"))],
    "box_right": [rec(box=(50, 0, 109, 50))],
    "box_bottom": [rec(box=(50, 0, 60, 90))],
    "box_top": [rec(box=(5, -3, 60, 50))],
    "box_width": [rec(box=(50, 0, 51, 50))],
    "box_height": [rec(box=(5, 50, 50, 51))],
    "box_share": [rec(box=(0, 0, 100, 80))],
    "labels": [ovd(labels=("cow",)), ovd(labels=("cat", "dog"))],
    "answer": [question(reward="numeric", answer="none"), question(reward="unheard_of")],
}
BESIDE = {  # what the same fault cannot but break as well
    "format": {"mode"}, "text": {"answer"}, "labels": {"answer", "itself"}, "places": {"answer"},
}  # fmt: skip


@pytest.mark.parametrize(("rule", "row"), [(rule, row) for rule, rows in FAULTS.items() for row in rows])
def test_a_fault_is_found_by_its_rule(suite, root, rule, row):
    others = {name for _, name in found(suite, root, [row])} - {rule}
    assert (1, rule) in found(suite, root, [row])
    assert others <= BESIDE.get(rule, set())


@pytest.mark.parametrize("row", [
    rec(), rec(box=None), rec(box=(-0.4, 0, 50, 80.4)), ovd(), ovd(boxes=(), labels=()), question(),
    question(images=(), sizes=(), text="2 + 2?"), question(reward="mcq", text="Which?\n(A) 3\n(B) 4", answer="B"),
    question(images=("a.png", "b.png"), sizes=(SIZE, SIZE), text="<image> then <image>?"),
    question(task="gui", images=("a.png", "b.png"), sizes=(SIZE, SIZE), reward="all_match", answer="No Defect"),
])  # fmt: skip
def test_a_good_row_of_every_task_passes(suite, root, row):
    assert found(suite, root, [row]) == set()


def test_repeats_and_leaks(suite, root):
    rows = [rec(0), rec(1, text=" A CAT "), rec(2, box=(1.0, 2.0, 30.0, 40.0)), rec(3, text="a dog")]
    assert found(suite, root, rows) == {(1, "duplicate"), (2, "contradiction")}
    rows = [rec(0, "copy.png"), rec(1, "near.png"), rec(2, "c.png")]
    assert found(suite, root, rows, evaluated=[rec(0, "b.png")]) == {(0, "leak"), (1, "near_leak")}
    blind = SETTINGS.model_copy(update={"decode": "none"})
    rows = [rec(0, "b.png"), rec(1, "gone.png"), rec(2, "../b.png")]
    assert found(suite, root, rows, blind, [rec(0, "b.png")]) == {(0, "leak"), (2, "path")}


def test_a_truth_that_does_not_earn_its_own_reward_is_found(suite, root, monkeypatch):
    monkeypatch.setattr(math, "rewards", lambda said, sample, names: {"accuracy": Reward(0.5, True, "half")})
    assert found(suite, root, [question()]) == {(1, "itself")}


def test_a_defect_nobody_knows_is_found(suite, root):
    spec, looks = Gui(format="gui", role="train", annotations="t", images="images"), Looks(SETTINGS)
    pair = {"images": ("a.png", "b.png"), "sizes": (SIZE, SIZE), "task": "gui", "reward": "all_match"}
    rows = [question(n, **pair, text=f"{n}?", answer=answer) for n, answer in enumerate((*gui.DEFECTS, "Some Defect"))]
    looks.look(root / "images", rows, lambda n: None)
    offences = suite.run(columns("t", spec, root, rows, looks, Repeats()))
    assert [(o.row, o.rule) for o in offences] == [(len(gui.DEFECTS), "labels")]
    assert set(gui.DEFECTS) == set(get_args(Label))


def test_every_rule_has_a_name_a_fault_and_a_place_in_the_settings():
    tested = {*FAULTS, "itself", "duplicate", "contradiction", "leak", "near_leak"}
    assert set(rules(SETTINGS)) == set(get_args(Rule)) == tested


def test_near_pictures_are_found_within_a_few_bits(root):
    near, look = Near(), 0b1011 << 140
    near.add(look, "known")
    for flips, name in ((0, "known"), (1, "known"), (1 | 1 << 383, "known"), (0b11111, "known"), (0b111111, "")):
        assert near.find(look ^ flips) == name
    with Image.open(root / "images/b.png") as one, Image.open(root / "images/c.png") as other:
        assert difference_hash(one) == difference_hash(one.resize((50, 40))) != difference_hash(other)
    one, other = Image.new("RGB", (64, 64), (120, 120, 120)), Image.new("RGB", (64, 64), (120, 120, 120))
    one.paste((200, 0, 0), (8, 8, 24, 24))
    other.paste((0, 0, 200), (8, 8, 24, 24))
    assert (difference_hash(one) ^ difference_hash(other)).bit_count() > Near.BITS  # another colour, another picture


def test_a_crowd_of_alike_pictures_costs_no_more_than_a_few():
    near = Near()
    for n in range(5000):
        near.add(n << 70, f"{n}")
    assert max(len(others) for band in near.bands for others in band.values()) == Near.CROWD
    assert near.find(4999 << 70) == "4999"


def test_a_bomb_is_never_decoded(tmp_path, monkeypatch):
    Image.new("L", (3000, 3000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    facts = facts_of(tmp_path, "bomb.png", full=True, most=1_000_000)
    assert facts.opens and not facts.few_pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert not facts_of(tmp_path, "bomb.png", full=True, most=1_000_000).few_pixels


def test_the_settings_and_pillow_have_one_limit():
    assert pictures.MOST_PIXELS == Image.MAX_IMAGE_PIXELS
    given = SETTINGS.model_dump()
    Validate.model_validate(given | {"max_picture_pixels": pictures.MOST_PIXELS})
    with pytest.raises(ValueError, match="max_picture_pixels"):
        Validate.model_validate(given | {"max_picture_pixels": pictures.MOST_PIXELS + 1})


OTHERS = {
    "e.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
    "a.jpg": (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
    "d.jpg": (b"DDS " + b"\0" * 60, "DDS"),
    "j.jpg": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    "g.png": (b"GIF89a" + b"\0" * 30, "GIF"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_told_by_its_head_and_never_decoded(name, tmp_path, monkeypatch):
    content, format = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    facts = facts_of(tmp_path, name, full=True, most=1_000_000)
    assert (facts.format, facts.opens, facts.fault) == (format, True, "")
    said = pytest.raises(pictures.PictureFault, match=f"{format}, save it as one of JPEG")
    with said, pictures.open_picture(tmp_path / name):
        pass


def test_files_that_are_no_pictures_are_facts_not_errors(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    long = "x" * 300 + ".png"
    facts = {
        name: facts_of(tmp_path, name, full=True, most=1000)
        for name in ("pipe.png", "round.png", "text.png", "folder.png", "none.png", long, "a\0b")
    }
    assert not any(one.opens for one in facts.values())
    assert facts["pipe.png"].fault == facts["folder.png"].fault == "no regular file"
    assert facts["text.png"].fault == "no picture" and facts[long].fault == "File name too long"
    assert not facts["round.png"].inside and not facts["a\0b"].inside
    assert facts["none.png"].inside and not facts["none.png"].exists

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("vlmr1.validation.pictures.sha256", refuse)
    assert facts_of(tmp_path, "text.png", full=True, most=1000).fault == "Permission denied"


def test_the_gallery_waits_for_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    gallery = Gallery()
    gallery.keep(Offence("opens", 0, "pipe.png: no regular file"), tmp_path, "t", rec(image="pipe.png"))
    assert gallery.draw(tmp_path / "sheets", 1000) == []


def test_the_suite_in_a_process_of_its_own_finds_the_same(suite, root):
    looks, rows = Looks(SETTINGS), [row for rows in FAULTS.values() for row in rows]
    looks.look(root / "images", rows, lambda n: None)
    table = columns("t", TRAIN, root, rows, looks, Repeats())
    desk = Desk(SETTINGS.model_copy(update={"workers": 2}))
    try:
        assert desk.look(table).result(timeout=60) == suite.run(table) != []
    finally:
        desk.close()


def test_pictures_are_looked_at_by_several_processes_alike(tmp_path):
    for n in range(70):
        Image.new("RGB", (8 + n, 9)).save(tmp_path / f"{n}.png")
    rows = [rec(n, f"{n}.png") for n in range(70)]
    known = []
    for workers in (1, 2):
        looks, counted = Looks(SETTINGS.model_copy(update={"workers": workers})), []
        looks.look(tmp_path, rows, counted.append)
        looks.close()
        assert sum(counted) == 70
        known.append(looks.known)
    assert known[0] == known[1]


def test_what_constant_answers_score():
    balance = Balance()
    for n, answer in enumerate(["No Defect", "no defect", "Operation No Response", "No Defect"]):
        balance.add(question(n, task="gui", answer=answer, kind="app"))
    told = balance.summary()
    assert told["constant"] == {"always 'no defect'": 0.75} and told["kinds"] == {"app": 4}
    balance = Balance()
    for n, box in enumerate([(0, 0, 100, 80), (0, 0, 100, 80), (0, 0, 10, 10), None]):
        balance.add(rec(n, box=box))
    told = balance.summary()["constant"]
    assert told == {"always None": 0.25, "the whole picture, hits": 0.5, "the median box, hits": 0.5}
    balance = Balance()
    balance.add(ovd())
    balance.add(ovd(boxes=(), labels=()))
    told = balance.summary()
    assert told["constant"]["always None"] == 0.5 and told["labels"] == {"different": 1, "most": {"cat": 1}}


def test_the_stage_reports_with_pictures_and_refuses_only_what_params_say(root, tmp_path, monkeypatch):
    from vlmr1.recipes import apply
    from vlmr1.stages import REFUSED, validate

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(default_params())
    lists = {"t": [("a.png", BOX), ("a.png", (0, 0, 100, 80)), ("c.png", (50, 0, 109, 50))], "e": [("b.png", BOX)]}
    held = {}
    for name, rows in lists.items():
        lines = [{"image": i, "width": 100, "height": 80, "normal_caption": f"no. {n}|<b>", "solution": box}
                 for n, (i, box) in enumerate(rows)]  # fmt: skip
        (root / f"{name}.json").write_text(json.dumps(lines))
        of = {"format": "rec_json", "annotations": f"{name}.json", "images": "images", "frame": "pixels"}
        held[name] = of | {"role": "train" if name == "t" else "evaluate"}
    base = {"pretrained": {"model": "any", "revision": None}, "tiny": None, "training": None}
    overlay = {"world": None, "warmup": base, "data": {"root": str(root), "sources": held}}
    overlay |= {"validate": {"workers": 1}, "gate": {"improve": ["e"], "keep": {}}}
    Path("over.json").write_text(json.dumps(overlay))
    apply(Path("over.json"), [])
    with pytest.raises(ValueError, match=r"1 rows refused; the first is t row 2 \(c\.png\): want: the box ends inside"):
        validate.main(load_params())
    report = json.loads((REFUSED.parent / "validation.json").read_text())
    assert report["refused"] == {"e": 0, "t": 1} and not report["passed"]
    shares = next(f for f in report["findings"] if f["rule"] == "box_share")
    assert (
        not shares["refuses"]
        and shares["rows"] == {"t": 1}
        and shares["examples"][0]["value"] == "[0, 0, 100, 80] in 100 x 80"
    )
    text = (REFUSED.parent / "validation.md").read_text()
    assert (
        "| t | 2 | box | [50, 0, 109, 50] in 100 x 80 | c.png | no. 2\\|&lt;b> |" in text
        and "![box_right](pictures/box_right.png)" in text
    )
    with Image.open(REFUSED.parent / "pictures/box_right.png") as sheet:
        assert sheet.size == (200, 228)
        assert (230, 30, 30) in {sheet.getpixel((x, 50)) for x in range(200)}
    assert json.loads(Path("metrics/validate.json").read_text()) == {
        "rows_looked_at": 4,
        "rows_refused": 1,
        "warnings": 1,
    }
    assert [json.loads(line)["row"] for line in REFUSED.read_text().splitlines()] == [2]
