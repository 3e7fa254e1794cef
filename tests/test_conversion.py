"""Conversion by itself: `vlmr1 convert` over lists of a format, and the JSONL of every task, read back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vlmr1.cli import main
from vlmr1.conversion import to_sample
from vlmr1.convert import formats, spec_of
from vlmr1.rows import Row
from vlmr1.sample import read_jsonl, to_json, write_jsonl
from vlmr1.sources import read_source

SIZE = (100, 80)
ROWS = [
    Row(0, ("a.png",), (SIZE,), "rec", "iou", "the left cup", ((1.0, 2.5, 30.0, 40.0),), kind="place"),
    Row(1, ("a.png",), (SIZE,), "rec", "iou", "the cup that is not there"),
    Row(2, ("a.png",), (SIZE,), "ovd", "od_ap", "", ((1.0, 2.0, 9.0, 9.0),) * 2, ("cat", "dog"), ("dog", "cat", "cow")),
    Row(3, ("a.png",), (SIZE,), "ovd", "od_ap", asked=("a cup, red", "a cup, blue")),
    Row(4, ("a.png",), (SIZE,), "ovd", "odLength", asked=("cow",)),
    Row(5, (), (), "math", "numeric", "2 + 2?", answer="4", group="sums"),
    Row(6, ("a.png", "b.png"), (SIZE, SIZE), "math", "mcq", "<image> or <image>?\n(A) 1\n(B) 2", answer="B"),
    Row(7, ("a.png", "b.png"), (SIZE, SIZE), "gui", "all_match", "what is wrong?", answer="No Defect"),
]


def test_every_tasks_rows_survive_the_jsonl(tmp_path):
    samples = [to_sample(row, tuple((s, s) for s in row.sizes), "s", "train") for row in ROWS]
    write_jsonl(tmp_path / "all.jsonl", map(to_json, samples))
    lines = read_jsonl(tmp_path / "all.jsonl")
    for key in lines[0]:
        assert len({type(line[key]) for line in lines}) == 1, key  # what a typed table would want
    assert [line["conversations"][0]["value"].count("<image>") for line in lines] == [1, 1, 1, 1, 1, 0, 2, 2]
    spec = spec_of("jsonl", tmp_path / "all.jsonl", tmp_path, [])
    assert list(read_source(spec, Path())) == ROWS


def test_boxes_go_with_their_picture():
    row = replace(ROWS[0], boxes=((-0.4, 10.0, 50.0, 80.4),))
    assert json.loads(to_sample(row, ((SIZE, (50, 40)),), "s", "t").solution) == [0, 5, 25, 40]


@pytest.fixture
def lists(tmp_path):
    """Two lists in the evaluation form, over one picture."""
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    for name, count in (("one", 2), ("two", 1)):
        one = {"image": "a.png", "width": 100, "height": 80, "solution": [1, 2, 50, 60]}
        rows = [one | {"normal_caption": f"{name} {i}"} for i in range(count)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def convert(folder, *more, source="rec_json", annotations="one.json:two.json"):
    names = ":".join(str(folder / name) for name in annotations.split(":"))
    given = ["--source", source, "--annotations", names, "--images", str(folder), "--output", str(folder / "out.jsonl")]
    main(["convert", *given, *more])
    return read_jsonl(folder / "out.jsonl")


def test_lists_become_one_jsonl_with_ids_of_their_own(lists, capsys):
    lines = convert(lists)
    assert [line["id"] for line in lines] == [0, 1, 2] and [line["source"] for line in lines] == ["one", "one", "two"]
    assert lines[0]["image"] == ["a.png"] and lines[0]["size"] == [[100, 80]]
    assert "3 samples in" in capsys.readouterr().out
    again = (lists / "out.jsonl").read_bytes()
    convert(lists)
    assert (lists / "out.jsonl").read_bytes() == again


def test_pictures_are_stored_and_shrunk_when_asked(lists):
    lines = convert(lists, "--store-pictures", str(lists / "small"), "--max-pixels", "2000")
    assert lines[0]["size"] == [[50, 40]] and json.loads(lines[0]["conversations"][1]["value"]) == [0.5, 1, 25, 30]
    with Image.open(lists / "small/a.png") as picture:
        assert picture.size == (50, 40)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "coca"}, "--source coca: no such format; one of refcoco, rec_jsonl"),
        ({"source": "refcoco"}, "split: missing; give it, -S KEY=VALUE"),
        ({"annotations": "one.json:three.json"}, r"three\.json: not found"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_is_left(lists, given, said, capsys):
    (lists / "out.jsonl").write_text("before\n")
    with pytest.raises(SystemExit) as error:
        convert(lists, **given)
    import re

    assert re.search(said, str(error.value))
    assert (lists / "out.jsonl").read_text() == "before\n"


NEEDED = {
    "refcoco": ["split=val"],
    "table": ["task=math", "reward=numeric", "columns={text: q, answer: a}", "frame=null"],
}


@pytest.mark.parametrize("name", formats())
def test_every_format_has_a_block_that_needs_no_more_than_it_must(name, tmp_path):
    spec = spec_of(name, tmp_path / "list", tmp_path, NEEDED.get(name, []))
    assert spec.format == name and Path(spec.annotations).is_absolute()
