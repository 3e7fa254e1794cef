"""Readers of referring expressions and training JSONL, on small files in each public form."""

import gc
import json
import pickle

import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from tests.faults import expect_fault
from vlmr1.rows import Row
from vlmr1.sample import Sample, to_json
from vlmr1.settings.sources import SourceSpec
from vlmr1.sources import read_source
from vlmr1.sources.reading import expression_of
from vlmr1.tasks import ovd

QUESTION = "Please provide the bounding box coordinate of the region this sentence describes:"


def read(root, **settings):
    spec = TypeAdapter(SourceSpec).validate_python({"role": "train", "images": "images", **settings})
    return list(read_source(spec, root))


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


# RefCOCO

REFS = [
    {
        "ref_id": 0, "ann_id": 7, "image_id": 3, "category_id": 1, "split": split, "file_name": "COCO_3_7.jpg",
        "sent_ids": [0, 1],
        "sentences": [{"sent": text, "raw": text.upper(), "tokens": text.split(), "sent_id": i} for i, text in said],
    }
    for split, said in (("train", [(0, "a cat"), (1, "das Kätzchen")]), ("val", [(2, "left one")]))
]  # fmt: skip
INSTANCES = {
    "images": [{"id": 3, "file_name": "COCO_3.jpg", "width": 640, "height": 480}],
    "annotations": [{"id": 7, "image_id": 3, "category_id": 1, "bbox": [1.5, 2, 30, 40], "segmentation": [[0, 1]]}],
    "categories": [],
}


@pytest.fixture
def refcoco(tmp_path):
    put(tmp_path / "instances.json", INSTANCES)
    put(tmp_path / "refs.json", REFS)
    for protocol in range(6):
        (tmp_path / f"refs{protocol}(unc).p").write_bytes(pickle.dumps(REFS, protocol=protocol))
    return tmp_path


@pytest.mark.parametrize("name", ["refs.json", *(f"refs{protocol}(unc).p" for protocol in range(6))])
def test_refcoco_is_read_alike_from_json_and_from_every_pickle_protocol(refcoco, name):
    rows = read(refcoco, format="refcoco", annotations=name, split="train")
    assert [(row.row, row.text) for row in rows] == [(0, "a cat"), (1, "das Kätzchen")]
    assert rows[0].images == ("COCO_3.jpg",) and rows[0].sizes == ((640, 480),)
    assert rows[1].boxes == ((1.5, 2.0, 31.5, 42.0),) and (rows[1].task, rows[1].reward) == ("rec", "iou")
    assert gc.isenabled()


def test_a_pickle_of_python_2_is_read(refcoco):
    old = b"(lp0\n(dp1\nS'split'\np2\nS'val'\np3\nsS'ann_id'\nL7L\nsS'image_id'\nI3\nsS'file_name'\nS'a.jpg'\n"
    old += b"sS'sentences'\n(lp4\n(dp5\nS'sent'\nVcaf\\u00e9\np6\nsasa."
    (refcoco / "refs(google).p").write_bytes(old)
    (row,) = read(refcoco, format="refcoco", annotations="refs(google).p", split="val")
    assert row.text == "café"


def test_a_value_without_end_is_shown_in_short(refcoco):
    (refcoco / "refs.p").write_bytes(_shared(100_000))
    spec = {"role": "train", "images": "", "format": "refcoco", "annotations": "refs.p", "split": "val"}
    rows = read_source(TypeAdapter(SourceSpec).validate_python(spec), refcoco)
    first = next(rows)
    expect_fault([first], r"refs\.p: item 0: an object is needed")
    assert len(first.fault) < 1000
    with pytest.raises(ValueError, match="no ref has split 'val'; it has no refs"):
        list(rows)


def _shared(depth):
    """A pickle of lists that hold the one before twice: tiny, and endless to whoever prints it."""
    return b"\x80\x02]q\x00" + b"".join(b"](h\x00h\x00eq\x00" for _ in range(depth)) + b"."


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ({**REFS[0], "image_id": 4}, "item 0: image_id 4 is none of instances"),
        ({**REFS[0], "image_id": [4]}, "item 0: image_id is .* where a whole number is needed"),
        ({**REFS[0], "sentences": [{"sent": 5}]}, "item 0: sent is 5 where text is needed"),
        ({**REFS[0], "split": None}, "item 0: split is None where text is needed"),
        ("x", "item 0: an object is needed, not 'x'"),
    ],
)
def test_malformed_refs_are_named_and_the_others_read(refcoco, ref, said):
    put(refcoco / "refs.json", [ref, *REFS])
    good = expect_fault(read(refcoco, format="refcoco", annotations="refs.json", split="train"), said)
    assert [(row.row, row.text) for row in good] == [(1, "a cat"), (2, "das Kätzchen")]


@pytest.mark.parametrize(
    ("refs", "said"),
    [
        ({}, r"refs\.json: a list of refs is needed, not \{\}"),
        (REFS[1:], "no ref has split 'train'; it has val"),
        ("{}\n{}\n", r"refs\.json:2: not JSON \(Extra data\); if it holds one object a line, end its name in \.jsonl"),
    ],
)
def test_a_list_that_is_none_of_refs_is_an_error(refcoco, refs, said):
    put(refcoco / "refs.json", refs)
    with pytest.raises(ValueError, match=said):
        read(refcoco, format="refcoco", annotations="refs.json", split="train")


def test_missing_files_are_named(refcoco):
    with pytest.raises(FileNotFoundError, match=r"refs\(umd\)\.p: not found"):
        read(refcoco, format="refcoco", annotations="refs(umd).p", split="train")
    (refcoco / "instances.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"instances\.json: not found"):
        read(refcoco, format="refcoco", annotations="refs.json", split="train")


# One expression a line

LINE = {"img_path": "a.jpg", "expression": " Odd  “one”", "bbox": [0, 1.5, 640.0, 9], "height": 480, "width": 640}


def test_an_expression_a_line(tmp_path):
    lines = [LINE, {**LINE, "bbox": None, "sent_id": 3}, {**LINE, "expression": "a\u2028b\u0085c"}]
    text = "\ufeff" + "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    (tmp_path / "l.jsonl").write_bytes(text.encode())
    rows = read(tmp_path, format="rec_jsonl", annotations="l.jsonl")
    assert [row.row for row in rows] == [0, 1, 2] and rows[0].text == " Odd  “one”"
    assert rows[0].boxes == ((0.0, 1.5, 640.0, 9.0),) and rows[0].sizes == ((640, 480),)
    assert rows[1].boxes == () and rows[2].text == "a\u2028b\u0085c"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (json.dumps({**LINE, "bbox": [1, 2, 3]}), r"line 2: bbox \[1, 2, 3\] is not a list of 4 numbers; mend or rem"),
        (json.dumps({**LINE, "bbox": [1, 2, 3, "4"]}), "line 2: bbox holds '4' where a number is needed"),
        (json.dumps({**LINE, "bbox": [1, 2, 3, True]}), "line 2: bbox holds True where a number"),
        (json.dumps({**LINE, "bbox": [1, 2, 3, 10**400]}), "line 2: bbox holds a number beyond all measure"),
        (json.dumps({**LINE, "width": "640"}), "line 2: width is '640' where a whole number is needed"),
        (json.dumps({**LINE, "height": 10**400}), "line 2: a width or height beyond all measure"),
        (json.dumps({**LINE, "expression": "\ud800"}), "line 2: .*surrogates"),
        (json.dumps({k: v for k, v in LINE.items() if k != "bbox"}), "line 2: no bbox"),
        (json.dumps({k: v for k, v in LINE.items() if k != "img_path"}), "line 2: no img_path"),
    ],
)
def test_malformed_lines_are_named_and_the_others_read(tmp_path, line, said):
    put(tmp_path / "l.jsonl", json.dumps(LINE) + "\n" + line + "\n" + json.dumps(LINE) + "\n")
    good = expect_fault(read(tmp_path, format="rec_jsonl", annotations="l.jsonl"), rf"l\.jsonl: {said}")
    assert [row.row for row in good] == [0, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"l\.jsonl:2: not JSON .*; write one JSON object a line"),
        ("[1]", r"l\.jsonl:2: a list where a JSON object"),
        ("[" * 100_000, r"l\.jsonl:2: not JSON \(maximum recursion"),
    ],
)
def test_a_file_that_is_not_one_object_a_line_is_an_error(tmp_path, line, said):
    put(tmp_path / "l.jsonl", json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=said):
        read(tmp_path, format="rec_jsonl", annotations="l.jsonl")


def test_bytes_that_are_no_text_and_files_of_nothing_are_named(tmp_path):
    (tmp_path / "l.jsonl").write_bytes(json.dumps(LINE).encode() + b'\n{"a": "\xff"}\n')
    with pytest.raises(ValueError, match=r"l\.jsonl:2: not UTF-8 text; save it as UTF-8"):
        read(tmp_path, format="rec_jsonl", annotations="l.jsonl")
    put(tmp_path / "l.jsonl", "\n \n")
    with pytest.raises(ValueError, match=r"l\.jsonl: no rows in it"):
        read(tmp_path, format="rec_jsonl", annotations="l.jsonl")


# The original project's evaluation JSON


def test_evaluation_json_in_both_frames(tmp_path):
    item = {"image": "a.jpg", "width": 640, "height": 480, "normal_caption": "a cat", "solution": [64, 48, 320, 240]}
    asked = {**item, "problem": f"{QUESTION} the dog..", "solution": [100, 100, 500, 500]}
    del asked["normal_caption"]
    put(tmp_path / "l.json", [item, asked, {**item, "solution": None}, {**item, "solution": []}])
    rows = read(tmp_path, format="rec_json", annotations="l.json", frame="pixels")
    assert [row.text for row in rows] == ["a cat", "the dog.", "a cat", "a cat"]
    assert [row.boxes for row in rows] == [((64, 48, 320, 240),), ((100, 100, 500, 500),), (), ()]
    rows = read(tmp_path, format="rec_json", annotations="l.json", frame="thousandths")
    assert rows[1].boxes == ((64, 48, 320, 240),)
    put(tmp_path / "l.json", [item, {**item, "solution": [1]}, item])
    rows = read(tmp_path, format="rec_json", annotations="l.json", frame="pixels")
    assert len(expect_fault(rows, r"l\.json: row 1: solution \[1\] is not a list of 4 .*; mend or remove it")) == 2


@pytest.mark.parametrize("text", ["a cat", "", "a cat.", "ends with dots...", "what: this"])
def test_the_expression_comes_out_of_the_question_as_it_went_in(text):
    assert expression_of(f"{QUESTION} {text}.") == text
    assert expression_of(f"another wording {text}.") == f"another wording {text}."


# Training JSONL


def turns(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def lines(tmp_path, *items, frame="pixels", task=None, reward=None):
    put(tmp_path / "t.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    return read(tmp_path, format="jsonl", annotations="t.jsonl", frame=frame, task=task, reward=reward)


def test_the_originals_rec_lines(tmp_path):
    first = {"id": 5, "image": "a.jpg", "conversations": turns(f"<image>{QUESTION} a cat.", "[1, 2.5, 30, 40]")}
    whole = {"image": ["a.jpg"], "conversations": turns(f"{QUESTION} a dog.", [1, 2, 3, 4])}
    none = {"image": "a.jpg", "conversations": turns("<image>the cow", "<answer> None </answer>")}
    rows = lines(tmp_path, first, whole, none, task="rec", reward="iou")
    assert [row.text for row in rows] == ["a cat", "a dog", "the cow"] and [row.row for row in rows] == [0, 1, 2]
    assert [row.boxes for row in rows] == [((1, 2.5, 30, 40),), ((1, 2, 3, 4),), ()]
    assert rows[0].images == rows[1].images == ("a.jpg",) and rows[0].sizes == ()


def test_thousandths_take_the_size_from_the_line_or_from_the_picture(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images/a.png")
    item = {"image": "a.png", "conversations": turns("x", "[0, 100, 500, 1000]")}
    declared, opened = lines(
        tmp_path, {**item, "size": [[640, 480]]}, item, frame="thousandths", task="rec", reward="a"
    )
    assert declared.boxes == ((0, 48, 320, 480),) and declared.sizes == ((640, 480),)
    assert opened.boxes == ((0, 10, 100, 100),) and opened.sizes == ((200, 100),)
    for image, said in (("no.png", "does not open"), ("../x.png", "leaves its folder")):
        rows = lines(tmp_path, {**item, "image": image}, frame="thousandths", task="rec", reward="iou")
        expect_fault(rows, f"line 1: .*{said}")


def test_detection_lines(tmp_path):
    listed = [{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6, 7, 8], "label": "a dog"}]
    question = "Please carefully check the image and detect the following objects: {}. Output each detected target's …"
    fenced = "```json\n" + json.dumps(listed) + "\n```"
    items = [
        {"image": "a.jpg", "conversations": turns("<image>" + question.format("a dog, cow, cat"), fenced)},
        {"image": "a.jpg", "conversations": turns(question.format('["a, b", "c"]'), "None")},
        {"image": "a.jpg", "conversations": turns("<image>Where are cats?", json.dumps(listed[:1]))},
    ]
    rows = lines(tmp_path, *items, task="ovd", reward="od_ap")
    assert rows[0].boxes == ((1, 2, 3, 4), (5, 6, 7, 8)) and rows[0].labels == ("cat", "a dog")
    assert rows[0].asked == ("a dog", "cow", "cat") and rows[0].text == ""
    assert rows[1].asked == ("a, b", "c") and rows[1].boxes == () and rows[1].labels == ()
    assert rows[2].asked == () and rows[2].text == "Where are cats?" and rows[2].labels == ("cat",)


def test_other_lines_stay_text_and_say_more_than_the_source(tmp_path):
    item = {"image": ["a.png", "b.png"], "conversations": turns("<image><image>Which?", 5), "task": "gui"}
    inside = {"conversations": turns("See <image> here", "B"), "image": "a.png", "accu_reward_method": "mcq"}
    bare = {"conversations": turns("1 + 1", ["2", 2]), "group": "g", "kind": "k"}
    rows = lines(tmp_path, item, inside, bare, task="math", reward="default")
    assert [row.text for row in rows] == ["Which?", "See <image> here", "1 + 1"]
    assert [row.answer for row in rows] == ["5", "B", '["2", 2]']
    assert [(row.task, row.reward) for row in rows] == [("gui", "default"), ("math", "mcq"), ("math", "default")]
    assert rows[0].images == ("a.png", "b.png") and rows[2].images == () and (rows[2].group, rows[2].kind) == ("g", "k")


def test_what_conversion_writes_reads_back(tmp_path):
    common = {"source": "s", "split": "x", "sizes": ((9, 8),), "group": "g", "kind": "k"}
    samples = [
        Sample(0, ("a.png",), f"{QUESTION} a cat..", "[1.0, 2.25, 3.0, 4.0]", "rec", "iou", **common),
        Sample(1, ("a.png",), f"{QUESTION} no such.", "None", "rec", "iou", **common),
        Sample(2, ("a.png",), "Look <image> there", "<b> 5", "math", "numeric", **common),
        Sample(3, ("a.png", "b.png"), "Which?\n", "No Defect", "gui", "all_match", **common),
    ]
    rows = lines(tmp_path, *map(to_json, samples))
    assert [row.text for row in rows] == ["a cat.", "no such", "Look <image> there", "Which?\n"]
    assert [row.answer for row in rows] == ["", "", "<b> 5", "No Defect"]
    assert [row.boxes for row in rows] == [((1, 2.25, 3, 4),), (), (), ()]
    for row, sample in zip(rows, samples, strict=True):
        assert (row.task, row.reward, row.images, row.sizes) == (sample.task, sample.reward, sample.images, ((9, 8),))
        assert (row.row, row.group, row.kind) == (sample.id, "g", "k")


BROKEN = {
    "no conversations": {},
    "conversations has 1 turns": {"conversations": turns("a", "b")[:1]},
    "the second of conversations has no value": {"conversations": [{"value": "a"}, "b"]},
    "value is 5 where text": {"conversations": turns(5, "b")},
    "image is 5 where a list": {"conversations": turns("a", "None"), "image": 5},
    "image holds 5 where text": {"conversations": turns("a", "None"), "image": [5]},
    "size is 5 where a list": {"conversations": turns("a", "None"), "size": 5},
    r"size \[1.5, 2\] is not two whole": {"conversations": turns("a", "None"), "size": [[1.5, 2]]},
    "group is 5 where text": {"conversations": turns("a", "None"), "group": 5},
    "task 'foo' is none of rec, ovd, math, gui": {"conversations": turns("a", "b"), "task": "foo"},
    "neither JSON nor None": {"conversations": turns("a", "over there")},
    r"the answer \{'x': 1\} is not a list of 4": {"conversations": turns("a", '{"x": 1}')},
    "no label": {"conversations": turns("a", '[{"bbox_2d": [1, 2, 3, 4]}]'), "task": "ovd"},
    "bbox_2d None is not": {"conversations": turns("a", '[{"label": "x"}]'), "task": "ovd"},
    "box is 5 where an object": {"conversations": turns("a", "[5]"), "task": "ovd"},
    "no list of boxes": {"conversations": turns("a", "5"), "task": "ovd"},
    "are no JSON list": {
        "conversations": turns("detect the following objects: [. Output each x", "None"),
        "task": "ovd",
    },
}


@pytest.mark.parametrize("said", BROKEN)
def test_malformed_training_lines_are_named(tmp_path, said):
    good = {"image": "a.jpg", "conversations": turns(f"{QUESTION} a cat.", "[1, 2, 3, 4]")}
    rows = lines(tmp_path, BROKEN[said], good, task="rec", reward="iou")
    assert len(expect_fault(rows, rf"t\.jsonl: line 1: .*{said}.*; mend or remove it")) == 1


def test_a_line_without_a_task_or_reward_needs_the_sources(tmp_path):
    item = {"conversations": turns("a", "b")}
    expect_fault(lines(tmp_path, item, reward="iou"), "line 1: no task, and the source names none")
    assert [row.reward for row in lines(tmp_path, item, task="math")] == ["default"]  # its task's first
    with pytest.raises(ValidationError, match="should be 'rec', 'ovd', 'math' or 'gui'"):
        lines(tmp_path, item, task="foo", reward="iou")
    with pytest.raises(ValidationError, match="auto is for answers of task math alone"):
        lines(tmp_path, item, task="rec", reward="auto")


# LISA


def shape(label, *points):
    return {"label": label, "points": [list(point) for point in points]}


def test_lisa_masks_become_boxes(tmp_path):
    shapes = [
        shape("ignore", (0, 0), (99, 99)),
        shape("target", (5, 6), (7, 6.5), (6, 9)),
        shape("target", (20, 2), (25, 30)),
        shape("flag"),
    ]
    put(tmp_path / "test/b.json", {"text": ["one", "two"], "is_sentence": False, "shapes": shapes})
    old = json.dumps({"text": ["caf\u00e9"], "is_sentence": True, "shapes": shapes[:1]}, ensure_ascii=False)
    (tmp_path / "test/a.json").write_bytes(old.encode("cp1252"))
    put(tmp_path / "images/b.PNG", "")
    settings = {"format": "lisa", "annotations": "test"}
    rows = read(tmp_path, polygons="all", **settings)
    assert [(row.row, row.text, row.kind) for row in rows] == [
        (0, "café", "sentence"), (1, "one", "phrase"), (2, "two", "phrase"),
    ]  # fmt: skip
    assert [row.images for row in rows] == [("a.jpg",), ("b.PNG",), ("b.PNG",)] and rows[0].sizes == ()
    assert [row.boxes for row in rows] == [(), ((5, 2, 25, 30),), ((5, 2, 25, 30),)]
    assert read(tmp_path, polygons="first", **settings)[1].boxes == ((5, 6, 7, 9),)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("{", "not JSON"),
        ({"text": "one", "is_sentence": True, "shapes": []}, "text is 'one' where a list is needed"),
        ({"text": ["one"], "is_sentence": 1, "shapes": []}, "is_sentence is 1 where true or false"),
        ({"text": ["one"], "is_sentence": True}, "no shapes"),
        ({"text": ["one"], "is_sentence": True, "shapes": [shape("target")]}, "a shape without points"),
        (
            {"text": ["one"], "is_sentence": True, "shapes": [shape("target", (1,))]},
            r"a point \[1\] is not a list of 2",
        ),
    ],
)
def test_malformed_label_files_are_named(tmp_path, item, said):
    put(tmp_path / "test/a.json", item)
    put(tmp_path / "test/b.json", {"text": ["one", "two"], "is_sentence": True, "shapes": []})
    rows = read(tmp_path, format="lisa", annotations="test", polygons="all")
    good = expect_fault(rows, rf"a\.json: {said}.*; mend or remove it")
    assert [(row.row, row.text) for row in good] == [(1, "one"), (2, "two")]


def test_a_folder_without_label_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="test: not found"):
        read(tmp_path, format="lisa", annotations="test", polygons="all")
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="no label file with a text in it"):
        read(tmp_path, format="lisa", annotations="test", polygons="all")


@pytest.mark.parametrize("asked", [("[red] cup", "dog"), ("dog", "[red] cup"), ("a, b",), ("plain", "names")])
def test_names_asked_for_are_read_back_whatever_is_in_them(tmp_path, asked):
    row = Row(0, ("a.png",), ((9, 8),), "ovd", "od_ap", asked=asked)
    sample = Sample(0, row.images, ovd.question(row), "None", "ovd", "od_ap", "s", "x", row.sizes)
    assert lines(tmp_path, to_json(sample))[0].asked == asked
