"""Readers of questions with checkable answers: each published form, what becomes of its parts, and what is refused."""

import json
import sys

import pytest
from pydantic import TypeAdapter

from tests.faults import expect_fault
from vlmr1.settings.sources import SourceSpec
from vlmr1.sources import read_source

VISTA = {
    "pid": "7",
    "question": "What is the total volume?\r\n",
    "image": "images/7.jpg",
    "choices": None,
    "unit": None,
    "precision": None,
    "answer": "1000",
    "question_type": "free_form",
    "answer_type": "integer",
    "metadata": {"img_width": 40, "img_height": 30, "task": "math word problem"},
}
VISION = {"id": "9", "question": "<image1>\nHow many?", "options": [], "answer": "2", "subject": "algebra"}
VISION |= {"level": 1, "image": "images/9.jpg", "solution": None}
VERSE = {
    "sample_index": "1",
    "problem_index": "4",
    "problem_version": "Text Dominant",
    "question": "Angle?\nA:1°\nB:2°",
}
VERSE |= {"image": "images_version_1-4/image_4.png", "answer": "B", "question_type": "multi-choice", "metadata": {}}
DYNA = {"question": "Which? choice: (A) Yes (B) No", "answer": "B", "image": "images/q89_v1.png"}
DYNA |= {"answer_type": "multiple choice", "subject": "algebra", "level": "undergraduate", "qid": 89, "varid": 1}
WE = {"ID": "12", "key": "2steps_1", "question": "Area?", "option": "A. 12; B. $\\frac{1}{2}$; C. none", "answer": "B"}
WE |= {"image_path": "image/12.png", "question number": 1, "knowledge concept": "Area of Rectangles"}
LOGIC = {"imagename": "v1_2.png", "question": " Which two?", "answer": "B, D", "skill": ["spatial"]}


def spec_of(name, file, reward="auto", only=None):
    spec = {"format": name, "role": "evaluate", "annotations": file, "images": ".", "reward": reward, "only": only}
    return TypeAdapter(SourceSpec).validate_python(spec)


def read(tmp_path, name, items, **keys):
    """The rows that a format's reader makes of these items, which stand in a list, an object or lines."""
    (tmp_path / "x.json").write_text(json.dumps(items))
    return list(read_source(spec_of(name, "x.json", **keys), tmp_path))


def one(tmp_path, name, item, **keys):
    (row,) = read(tmp_path, name, [item], **keys)
    assert (row.row, row.task) == (0, "math")
    return row


def test_mathvista_numbers_have_unit_precision_and_size(tmp_path):
    row = one(tmp_path, "mathvista", VISTA)
    assert (row.text, row.answer, row.reward) == ("What is the total volume?", "1000", "numeric")
    assert (row.images, row.sizes, row.kind) == (("images/7.jpg",), ((40, 30),), "math word problem")
    row = one(tmp_path, "mathvista", VISTA | {"unit": "g"})
    assert (row.text, row.answer) == ("What is the total volume?\n(Unit: g)", "1000 g")
    row = one(tmp_path, "mathvista", VISTA | {"answer": "1.25", "answer_type": "float", "precision": 2.0})
    assert row.text.endswith("\n(Round to 2 decimal places.)")
    row = one(tmp_path, "mathvista", VISTA | {"answer": "[1, 2]", "answer_type": "list"})
    assert (row.answer, row.reward) == ("[1, 2]", "math") and "list" in row.text


def test_mathvista_choices_become_lines_and_the_answer_their_letter(tmp_path):
    chosen = VISTA | {
        "question_type": "multi_choice",
        "answer_type": "text",
        "choices": ["6cm", "7cm"],
        "answer": "7cm",
    }
    row = one(tmp_path, "mathvista", chosen)
    assert (row.text, row.answer) == ("What is the total volume?\n(A) 6cm\n(B) 7cm", "B")
    assert row.reward == "mcq"
    # a truth that is none of the choices is kept for validation, which parses it under the row's reward
    assert one(tmp_path, "mathvista", chosen | {"answer": "8cm"}).answer == "8cm"
    assert one(tmp_path, "mathvista", chosen | {"choices": ["A", "B"], "answer": "B"}).text.endswith("\n(A)\n(B)")


@pytest.mark.parametrize("form", ["object", "list", "lines"])
def test_a_list_is_read_in_each_of_its_forms(tmp_path, form):
    items = [VISTA, VISTA | {"pid": "8", "question": "Second?"}]
    file = tmp_path / ("x.jsonl" if form == "lines" else "x.json")
    if form == "lines":
        file.write_text("".join(json.dumps(item) + "\n" for item in items))
    else:
        file.write_text(json.dumps({item["pid"]: item for item in items} if form == "object" else items))
    rows = list(read_source(spec_of("mathvista", file.name), tmp_path))
    assert [(row.row, row.text) for row in rows] == [(0, "What is the total volume?"), (1, "Second?")]


def test_parquet_names_its_pictures_beside_their_bytes(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    items = [WE | {"image_path": {"bytes": b"png", "path": f"{i}.png"}} for i in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(items), tmp_path / "x.parquet", row_group_size=2)
    rows = list(read_source(spec_of("wemath", "x.parquet"), tmp_path))
    assert [row.images for row in rows] == [("0.png",), ("1.png",), ("2.png",)]
    items[1]["image_path"]["path"] = None
    parquet.write_table(pyarrow.Table.from_pylist(items), tmp_path / "x.parquet")
    rows = list(read_source(spec_of("wemath", "x.parquet"), tmp_path))
    expect_fault(rows, r"x\.parquet: row 1: a picture's bytes .* write the picture to the picture folder")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"x\.parquet: not a whole Parquet file"):
        list(read_source(spec_of("wemath", "x.parquet"), tmp_path))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"needs pyarrow; pip install -e '\.\[parquet\]'"):
        list(read_source(spec_of("wemath", "x.parquet"), tmp_path))


def test_mathvision_places_are_kept(tmp_path):
    row = one(tmp_path, "mathvision", VISION)
    assert (row.text, row.images, row.kind) == ("<image>\nHow many?", ("images/9.jpg",), "algebra")
    assert row.reward == "numeric"
    # one picture in which all that the text names is drawn, each under its name
    text = "Does <image1> weigh more than <image2>?"
    assert one(tmp_path, "mathvision", VISION | {"question": text}).text == text
    text = "Turn <image1> by 90°. Is it <image1>?"
    assert one(tmp_path, "mathvision", VISION | {"question": text}).text == "Turn <image> by 90°. Is it <image1>?"
    # several: in the order of their places, those unmentioned before the text
    text = "<image3> against <image1>"
    row = one(tmp_path, "mathvision", VISION | {"question": text, "image": ["a.png", "b.png", "c.png"]})
    assert (row.text, row.images) == ("<image><image> against <image>", ("b.png", "c.png", "a.png"))
    # a place without a picture stays, for validation to name
    row = one(tmp_path, "mathvision", VISION | {"question": "<image1> <image2>", "image": None})
    assert (row.text, row.images) == ("<image> <image>", ())


def test_mathvision_options_that_are_only_drawn_are_only_lettered(tmp_path):
    options = VISION | {"question": "Which?", "answer": "B"}
    row = one(tmp_path, "mathvision", options | {"options": ["A", "(B)", "$x$"]})
    assert (row.text, row.answer, row.reward) == ("Which?\n(A)\n(B)\n(C) $x$", "B", "mcq")
    assert one(tmp_path, "mathvision", options | {"options": ["<image1>"]}).text == "Which?\n(A) <image>"


def test_mathverse_versions_of_a_problem_are_a_group(tmp_path):
    versions = [
        VERSE,
        VERSE | {"problem_version": "Text Only", "image": ""},
        VERSE | {"problem_version": "Vision Only", "question": ""},
        VERSE | {"problem_version": "Vision Only", "question": "", "question_type": "free-form", "answer": "4"},
    ]
    rows = read(tmp_path, "mathverse", versions)
    assert {row.group for row in rows} == {"4"}
    assert [row.kind for row in rows] == ["Text Dominant", "Text Only", "Vision Only", "Vision Only"]
    assert rows[0].text == "Angle?\nA:1°\nB:2°"  # choices that stand in the text are left as they stand
    assert (rows[1].images, rows[1].text) == ((), "Angle?\nA:1°\nB:2°")
    assert rows[2].text == "Answer the question in the picture with the letter of the right choice."
    assert (rows[3].text, rows[3].reward) == ("Answer the question in the picture.", "numeric")
    only = read(tmp_path, "mathverse", versions, only="Vision Only")
    assert [row.row for row in only] == [2, 3]  # a row keeps its place in the list
    with pytest.raises(ValueError, match="no row is of kind 'Video'; it has Text Dominant, Text Only, Vision Only"):
        read(tmp_path, "mathverse", versions, only="Video")


def test_dynamath_variants_of_a_question_are_a_group(tmp_path):
    published = {"id": "q1", "question": "How long?", "ground_truth": 2.5, "image": "1.png", "answer_type": "float"}
    first, second = read(tmp_path, "dynamath", [DYNA, published])
    assert (first.group, first.kind, first.answer, first.reward) == ("89", "algebra/undergraduate", "B", "mcq")
    items = [DYNA, DYNA | {"level": "school"}, DYNA | {"subject": "graphs"}, DYNA | {"level": ""}]
    rows = {only: [row.row for row in read(tmp_path, "dynamath", items, only=only)] for only in ("algebra", "school")}
    assert rows == {"algebra": [0, 1, 3], "school": [1]}
    assert [row.row for row in read(tmp_path, "dynamath", items, only="graphs/undergraduate")] == [2]
    assert (second.group, second.kind, second.answer, second.reward) == ("q1", "", "2.5", "numeric")


def test_wemath_steps_of_a_problem_are_a_group(tmp_path):
    row = one(tmp_path, "wemath", WE)
    assert row.text == "Area?\n(A) 12\n(B) $\\frac{1}{2}$\n(C) none"
    assert (row.group, row.kind, row.answer, row.reward) == ("12", "2steps_1", "B", "mcq")
    # a string that is no run of lettered choices is asked as it stands
    assert one(tmp_path, "wemath", WE | {"option": "B. 1; A. 2"}).text == "Area?\nB. 1; A. 2"


def test_logicvista_answers_may_be_several_letters(tmp_path):
    row = one(tmp_path, "logicvista", LOGIC)
    assert (row.text, row.answer, row.reward, row.kind) == ("Which two?", "B, D", "mcq", "spatial")
    expect_fault(read(tmp_path, "logicvista", [LOGIC | {"skill": ["\ud800"]}]), "row 0: .*surrogates not allowed")


@pytest.mark.parametrize(("answer", "reward"), [("-3", "numeric"), ("1e3", "numeric"), (".5", "numeric")])
@pytest.mark.parametrize("exact", ["\\frac{1}{2}", "(3, 4)", "1_0", "nan", "5 or 6", ""])
def test_auto_is_by_the_answer_and_any_other_reward_is_every_rows(tmp_path, answer, reward, exact):
    assert one(tmp_path, "mathvision", VISION | {"answer": answer}).reward == reward
    assert one(tmp_path, "mathvision", VISION | {"answer": exact}).reward == "math"
    assert one(tmp_path, "mathvision", VISION | {"answer": answer}, reward="default").reward == "default"


@pytest.mark.parametrize(
    ("name", "item", "said"),
    [
        ("mathvista", {k: v for k, v in VISTA.items() if k != "answer"}, r"x\.json: row 0: no answer; mend or remove"),
        ("mathvista", VISTA | {"metadata": "none"}, "row 0: 'str' object"),
        ("mathvista", VISTA | {"metadata": {"img_width": "wide", "img_height": 1}}, "row 0: invalid literal"),
        ("mathvision", VISION | {"options": ["x"] * 27}, "row 0: 27 choices, more than there are letters"),
        ("mathvision", VISION | {"question": "\ud800"}, "row 0: .*surrogates not allowed"),
        ("mathvision", VISION | {"image": 9}, "row 0: 9 where a picture's file name is needed"),
        ("mathverse", {**VERSE, "image": [None, {"bytes": "…"}]}, "row 0: a picture's bytes"),
        ("dynamath", {"question": "?", "image": "a"}, "row 0: no answer or ground_truth"),
        ("wemath", WE | {"option": 3, "ID": None, "key": None, "answer": None} | {"image_path": 4}, "row 0: 4 where"),
        ("logicvista", [], "row 0: a list where an object with named fields is needed"),
        ("logicvista", {"question": "?", "answer": "A"}, "row 0: no imagename or image"),
    ],
)
def test_a_malformed_item_is_named(tmp_path, name, item, said):
    good = {"mathvista": VISTA, "mathvision": VISION, "mathverse": VERSE, "dynamath": DYNA, "wemath": WE}
    assert [row.row for row in expect_fault(read(tmp_path, name, [item, good.get(name, LOGIC)]), said)] == [1]


@pytest.mark.parametrize(
    ("name", "bytes_", "said"),
    [
        ("x.json", b"{", r"x\.json:1: not JSON \(Expecting property name"),
        ("x.json", b"[" * 200_000, r"not JSON \("),
        ("x.json", b'{"a": 1}\n{"a": 2}', r"end its name in \.jsonl"),
        ("x.json", b"3", "a list of rows is needed, not a int"),
        ("x.json", b"[]", r"x\.json: no rows in it"),
        ("x.json", b"\xff", "not UTF-8 text; save it as UTF-8"),
        ("x.jsonl", b"\n{}\n[1]\n", r"x\.jsonl:3: a list where a JSON object"),
        ("x.jsonl", b"[1]\n", r"x\.jsonl:1: this is one JSON array; write its items one a line"),
        ("x.jsonl", b'[\n  {"a": 1}\n]\n', r"x\.jsonl:1: this is one JSON array; write its items one a line"),
        ("x.jsonl", b"\x1f\x8b\x08", r"x\.jsonl:1: not UTF-8 text; it is compressed: unpack it"),
        ("x.json", b"\x1f\x8b\x08", r"x\.json: not UTF-8 text; it is compressed: unpack it"),
        ("x.jsonl", '{"a": 1}'.encode("utf-16"), r"x\.jsonl:1: not UTF-8 text; save it as UTF-8"),
        ("x.json", '{"a": 1}'.encode("utf-16"), r"x\.json: not UTF-8 text; save it as UTF-8"),
        ("x.jsonl", b'{"a": "\xff"}', r"x\.jsonl:1: not UTF-8 text"),
        ("x.jsonl", b"{", r"x\.jsonl:1: not JSON"),
        ("x.jsonl", b"", "no rows in it"),
        ("x.tsv", b"", r"a list ends in \.json, \.jsonl, \.csv or \.parquet; save it as one of these"),
        ("x.csv", b"a;b\n1;2\n", r"x\.csv:1: semicolons stand between its columns; save it with commas"),
    ],
)
def test_a_file_that_is_no_list_is_named(tmp_path, name, bytes_, said):
    (tmp_path / name).write_bytes(bytes_)
    with pytest.raises(ValueError, match=said):
        list(read_source(spec_of("mathvision", name), tmp_path))


def test_an_item_of_an_object_that_is_none_is_named(tmp_path):
    expect_fault(read(tmp_path, "mathvision", {"a": 3}), r"x\.json: item 'a': a int where an object with named fields")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: not found$"):
        list(read_source(spec_of("wemath", "nowhere.json"), tmp_path))


def test_lines_are_streamed(tmp_path):
    """The first rows come before a fault further down is met, and with a byte order mark before them."""
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(VISION).encode() + b"\r\n{")
    rows = read_source(spec_of("mathvision", "x.jsonl"), tmp_path)
    assert next(rows).answer == "2"
    with pytest.raises(ValueError, match=r"x\.jsonl:2"):
        next(rows)
