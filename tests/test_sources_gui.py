"""The reader of screenshot pairs: what it keeps of a line, and what it refuses."""

import json

import pytest

from tests.faults import expect_fault
from vlmr1.settings.sources import Gui
from vlmr1.sources import read_source

PROMPT = 'Find the defect. The action: [click on "Select" [row 2].]. Answer with its name.'


def line(images=("1_before.png", "1_after.png"), said=PROMPT, answer="No Defect", **more):
    turns = [{"from": "human", "value": said}, {"from": "gpt", "value": answer}]
    return {"id": 1, "image": list(images), "conversations": turns, **more}


def read(tmp_path, *lines):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(item) + "\n" for item in lines))
    spec = Gui(format="gui", role="train", annotations="x.jsonl", images="images")
    return list(read_source(spec, tmp_path))


def test_a_line_is_kept_as_it_is(tmp_path):
    rows = read(tmp_path, line(meta={"kind": "natural"}), line(said=f"<image> then <image>: {PROMPT}", answer=" Odd "))
    assert [row.row for row in rows] == [0, 1]
    assert (rows[0].images, rows[0].sizes) == (("1_before.png", "1_after.png"), ())
    assert (rows[0].task, rows[0].reward, rows[0].text, rows[0].answer) == ("gui", "all_match", PROMPT, "No Defect")
    assert (rows[0].group, rows[0].kind) == ("", "")
    assert rows[1].text == f"<image> then <image>: {PROMPT}"
    assert rows[1].answer == "Odd"  # a label that no one knows: validation says so


def test_what_conversion_writes_is_read_back(tmp_path):
    (row,) = read(tmp_path, line(accu_reward_method="default", kind="settings", group="7"))
    assert (row.reward, row.kind, row.group) == ("default", "settings", "7")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (line(images=["a.png"]), "1 pictures where the screenshots before and after are needed"),
        (line(images=["a.png", 3]), "3 where a picture's file name is needed"),
        ({"conversations": []}, "no image"),
        ({"image": ["a", "b"]}, "no conversations"),
        (line() | {"conversations": [{"value": "x"}]}, "a question and its answer are needed"),
        (line() | {"conversations": "text"}, "a question and its answer are needed"),
        (line() | {"conversations": [{"from": "human"}, {"value": "x"}]}, "no value"),
        (line(answer=None), "value is not text"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, item, said):
    good = expect_fault(read(tmp_path, line(), item, line()), rf"x\.jsonl:2: .*{said}.*; mend or remove the row")
    assert [row.row for row in good] == [0, 2]
