"""One's own tables: every kind of file and cell, and every fault named by file, line and column."""

import csv
import json
from datetime import date
from decimal import Decimal

import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from tests.faults import expect_fault
from vlmr1.settings.sources import SourceSpec
from vlmr1.sources import read_source

REC = {"image": "file", "text": "said", "box": "box"}
OVD = {"image": "file", "text": "names", "box": "boxes", "label": "labels"}
MATH = {"text": "q", "answer": "a", "image": "p", "group": "g", "kind": "k"}


def spec_of(file, task="rec", columns=REC, frame="pixels", reward="iou"):
    spec = {"format": "table", "role": "train", "annotations": file, "images": "images", "task": task}
    return TypeAdapter(SourceSpec).validate_python({**spec, "reward": reward, "frame": frame, "columns": columns})


def write(tmp_path, kind, rows):
    path = tmp_path / f"x.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
            table.writerows(cells)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1)
    return path.name


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_expressions_with_boxes_or_without_a_target(tmp_path, kind):
    rows = [
        {"file": "a.png", "said": "the left, upper cup", "box": [1, 2, 30.5, 40], "spare": 1},
        {"file": "b.png", "said": "a dog", "box": None, "spare": 2},
    ]
    first, second = read_source(spec_of(write(tmp_path, kind, rows)), tmp_path)
    assert (first.row, first.images, first.sizes, first.task) == (0, ("a.png",), (), "rec")
    assert (first.text, first.boxes, first.reward) == ("the left, upper cup", ((1.0, 2.0, 30.5, 40.0),), "iou")
    assert (second.row, second.boxes) == (1, ())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_box_in_four_columns(tmp_path, kind):
    rows = [{"file": "a.png", "said": "x", "l": 1, "t": 2, "r": 3, "b": 4}]
    rows.append({"file": "a.png", "said": "y", "l": None, "t": None, "r": None, "b": None})
    spec = spec_of(write(tmp_path, kind, rows), columns=REC | {"box": "l, t,r,b"})
    assert [row.boxes for row in read_source(spec, tmp_path)] == [((1.0, 2.0, 3.0, 4.0),), ()]


def test_boxes_in_thousandths_are_carried_to_the_picture(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 50)).save(tmp_path / "images/a.png")
    file = write(tmp_path, "jsonl", [{"file": "a.png", "said": "x", "box": [100, 200, 500, 1000]}])
    (row,) = read_source(spec_of(file, frame="thousandths"), tmp_path)
    assert (row.boxes, row.sizes) == (((20.0, 10.0, 100.0, 50.0),), ((200, 50),))
    for name, said in {
        "b.png": "its size is needed",
        "../x": "leaves its folder",
        "": "file: empty where a picture",
    }.items():
        file = write(tmp_path, "jsonl", [{"file": name, "said": "x", "box": [100, 200, 500, 1000]}])
        expect_fault(list(read_source(spec_of(file, frame="thousandths"), tmp_path)), rf"x\.jsonl:1: .*{said}")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_detection_has_as_many_labels_as_boxes(tmp_path, kind):
    rows = [
        {"file": "a.png", "names": ["cup", "dog"], "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": ["cup", "cup"]},
        {"file": "a.png", "names": ["dog"], "boxes": [], "labels": []},
    ]
    first, second = read_source(spec_of(write(tmp_path, kind, rows), "ovd", OVD, reward="od_ap"), tmp_path)
    assert (first.asked, first.labels, first.text) == (("cup", "dog"), ("cup", "cup"), "")
    assert first.boxes == ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))
    assert (second.asked, second.labels, second.boxes) == (("dog",), (), ())
    file = write(tmp_path, kind, [rows[0] | {"labels": ["cup"]}, rows[0]])
    rows = list(read_source(spec_of(file, "ovd", OVD, reward="od_ap"), tmp_path))
    assert [row.row for row in expect_fault(rows, "labels: 1 labels for 2 boxes; mend or remove the row")] == [1]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_questions_with_several_pictures_or_none(tmp_path, kind):
    rows = [
        {"q": "<image> or <image>?", "a": "3", "p": "a.png|b c.png", "g": "1", "k": "hard"},
        {"q": "sum?", "a": "", "p": "", "g": "1", "k": ""},
        {"q": "three?", "a": "x", "p": '["a.png", "b.png", "c.png"]', "g": "2", "k": ""},
    ]
    rows = list(read_source(spec_of(write(tmp_path, kind, rows), "math", MATH, None, "numeric"), tmp_path))
    assert [row.images for row in rows] == [("a.png", "b c.png"), (), ("a.png", "b.png", "c.png")]
    assert (rows[0].text, rows[0].answer, rows[0].group, rows[0].kind) == ("<image> or <image>?", "3", "1", "hard")
    assert rows[1].answer == ""


def test_numbers_are_text_and_lists_of_pictures_are_several(tmp_path):
    columns = {"image": "p", "text": "q", "answer": "a"}
    file = write(tmp_path, "jsonl", [{"p": ["a.png", "b.png"], "q": "?", "a": 3}])
    (row,) = read_source(spec_of(file, "gui", columns, None, "all_match"), tmp_path)
    assert (row.images, row.answer, row.task, row.reward) == (("a.png", "b.png"), "3", "gui", "all_match")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('file,said,box\na.png,x,"[1,2]"\n', r"x\.csv:2: box: \[1, 2\] is not 4 numbers"),
        ('file,said,box\na.png,x,"[1,2,3,a]"\n', r"x\.csv:2: box: .* is not a JSON list"),
        ("file,said,box\na.png,x,7\n", r"x\.csv:2: box: 7 is not a list"),
        ('file,said,box\na.png,a cup, left,"[1,2,3,4]"\n', r"x\.csv:2: more cells than the 3 columns; quote"),
        ("file,said,box\na.png\n", r"x\.csv:2: fewer cells than the 3 columns"),
        ("file,said,box\n,x,\n", r"x\.csv:2: file: empty where a picture's file name is needed"),
    ],
)
def test_faults_are_named_by_line_and_column_and_other_rows_read(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text + 'b.png,y,"[1,2,3,4]"\n')
    (good,) = expect_fault(list(read_source(spec_of("x.csv"), tmp_path)), said)
    assert (good.row, good.text) == (1, "y")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,said\na.png,x\n", r"x\.csv: no column 'box' among file, said; mend the source's columns"),
        ("file;said;box\na.png;x;\n", r"x\.csv:1: semicolons stand between its columns; save it with commas"),
        ("file\tsaid\tbox\na.png\tx\t\n", r"x\.csv:1: tabs stand between its columns; save it with commas"),
        ('file,said,box\na.png,"x"y,\n', r"x\.csv:2: not CSV"),
        ("file,said,box,said\na.png,x,,y\n", r"x\.csv:1: two columns are named 'said'"),
        ("file,said,box\n", r"x\.csv: no rows in it"),
        ("file,said,box\na.png,\xe9,\n", r"x\.csv: not UTF-8"),
        ("", r"x\.csv: no rows in it"),
    ],
)
def test_what_is_wrong_with_the_whole_file_is_an_error(tmp_path, text, said):
    (tmp_path / "x.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=said):
        list(read_source(spec_of("x.csv"), tmp_path))


def test_a_column_that_a_line_lacks_is_named_with_the_mend(tmp_path):
    file = write(tmp_path, "jsonl", [{"file": "a.png", "sad": "x", "box": None}])
    said = r"x\.jsonl:1: no column 'said', which columns\.text names, among file, sad, box; mend the source's columns"
    expect_fault(list(read_source(spec_of(file), tmp_path)), said)


def test_cells_that_json_has_no_word_for(tmp_path):
    columns = {"text": "q", "answer": "a", "kind": "k"}
    cells = [Decimal("2.50"), date(2024, 2, 29), [date(2024, 2, 29)], b"2", [b"2"]]
    said = []
    for cell in cells:
        file = write(tmp_path, "parquet", [{"q": "?", "a": cell, "k": ""}])
        (row,) = read_source(spec_of(file, "math", columns, None, "default"), tmp_path)
        said.append(row.answer or row.fault.split(": ", 2)[2])
    assert said[:3] == ["2.50", "2024-02-29", '["2024-02-29"]']
    assert said[3:] == ["bytes where text is needed; mend or remove the row"] * 2


def test_reward_auto_is_by_the_answer(tmp_path):
    answers = {"-2.5": "numeric", "B": "mcq", "b": "mcq", "D": "math", "x + 1": "math"}
    file = write(tmp_path, "jsonl", [{"q": "Which?\n(A) 1\n(B) 2", "a": answer} for answer in answers])
    columns = {"text": "q", "answer": "a"}
    rows = list(read_source(spec_of(file, "math", columns, None, "auto"), tmp_path))
    assert [row.reward for row in rows] == list(answers.values())
    with pytest.raises(ValidationError, match="reward: auto is for task math alone"):
        spec_of(file, reward="auto")


def test_four_columns_must_all_be_numbers(tmp_path):
    (tmp_path / "x.csv").write_text("file,said,l,t,r,b\na.png,x,1,2,,4\n")
    rows = list(read_source(spec_of("x.csv", columns=REC | {"box": "l,t,r,b"}), tmp_path))
    expect_fault(rows, r"x\.csv:2: l,t,r,b: \['1', '2', '', '4'\] is not 4 numbers")


def test_a_column_that_a_parquet_table_lacks_is_named(tmp_path):
    file = write(tmp_path, "parquet", [{"file": "a.png", "said": "x"}])
    with pytest.raises(ValueError, match=r"x\.parquet: no column 'box' among file, said; mend the source's columns"):
        list(read_source(spec_of(file), tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": {"image": "f", "text": "t"}}, "columns: task rec needs box"),
        ({"columns": REC | {"answer": "a"}}, "columns: task rec has no use for answer"),
        ({"frame": None}, "frame: belongs to a column of boxes"),
        ({"task": "math", "columns": {"text": "q", "answer": "a"}}, "frame: belongs to a column of boxes"),
        ({"columns": REC | {"text": "a,b"}}, "columns: text: one column, or, for the box of task rec, four"),
        ({"columns": REC | {"box": "a,b"}}, "columns: box: one column"),
        ({"task": "ovd", "columns": OVD | {"box": "a,b,c,d"}}, "columns: box: one column"),
        ({"task": "vqa"}, "should be 'rec', 'ovd', 'math' or 'gui'"),
        ({"file": "/x.csv"}, "annotations\n.*it leaves data.root; give a path below that"),
        ({"file": "a/../../x.csv"}, "leaves data.root"),
        ({"columns": REC | {"picture": "f"}}, "should be 'image'"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        spec_of(**{"file": "x.csv", **change})
