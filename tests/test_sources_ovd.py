"""Readers of detection sets, on small files in each public form."""

import json
import pickle

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tests.faults import expect_fault
from vlmr1.settings.sources import SourceSpec
from vlmr1.sources import read_source

NAMES = {1: "cat", 2: "dog", 5: "cow", 6: "hen"}


def read(root, **settings):
    spec = {"role": "train", "images": "images", "reward": "od_ap", "annotations": "a.json", **settings}
    return list(read_source(TypeAdapter(SourceSpec).validate_python(spec), root))


def coco_set(found, names=NAMES, **of_picture):
    """COCO's form. `found`: by picture id, (category id, x, iscrowd) of each box; boxes are [x, 0, 10, 20]."""
    pictures = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480, **of_picture} for i in found]
    boxes = [(i, *box) for i, of_one in found.items() for box in of_one]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": [x, 0, 10, 20], "iscrowd": crowd, "segmentation": [[1]]}
        for n, (i, c, x, crowd) in enumerate(boxes)
    ]
    categories = [{"id": id_, "name": name, "supercategory": "animal"} for id_, name in names.items()]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


FOUND = {
    10: [(1, 0, 0), (2, 30, 0)],
    11: [(1, x, 0) for x in range(11)] + [(2, 50, 0)],
    12: [(5, 0, 1)],
    13: [],
    14: [(2, 0, 0), (2, 20, 0)],
}
COCO = {"format": "coco", "keep": "all", "crowd": "drop", "negatives": 1, "seed": 3}


def test_a_picture_makes_one_row_with_its_boxes_and_what_is_asked(tmp_path):
    put(tmp_path / "a.json", coco_set(FOUND))
    rows = read(tmp_path, **COCO)
    assert [row.row for row in rows] == [0, 1, 2, 3, 4] and rows[0].images == ("10.jpg",)
    first = rows[0]
    assert (first.task, first.reward, first.text, first.sizes) == ("ovd", "od_ap", "", ((640, 480),))
    assert first.boxes == ((0, 0, 10, 20), (30, 0, 40, 20)) and first.labels == ("cat", "dog")
    assert len(first.asked) == 3 and {"cat", "dog"} < set(first.asked)
    assert rows[3].boxes == () and len(rows[3].asked) == 1
    assert rows[2].boxes == () and "cow" not in rows[2].asked  # a crowd of cows is there: cows are not absent


@pytest.mark.parametrize(
    ("keep", "crowd", "kept"),
    [
        ("all", "drop", {0: 2, 1: 12, 2: 0, 3: 0, 4: 2}),
        ("all", "keep", {0: 2, 1: 12, 2: 1, 3: 0, 4: 2}),
        ("filtered", "drop", {0: 2, 1: 1, 2: 0, 3: 0, 4: 2}),
        ("pos_2", "drop", {0: 2}),
        ("pos_2", "keep", {0: 2, 2: 1}),
        ("pos_3", "drop", {0: 2, 4: 2}),
        ("pos_3", "keep", {0: 2, 2: 1, 4: 2}),
    ],
)
def test_evaluation_sets_are_chosen_as_defined(tmp_path, keep, crowd, kept):
    put(tmp_path / "a.json", coco_set(FOUND))
    rows = read(tmp_path, **COCO | {"keep": keep, "crowd": crowd})
    assert {row.row: len(row.boxes) for row in rows} == kept


def test_ten_boxes_of_a_category_are_not_too_many(tmp_path):
    put(tmp_path / "a.json", coco_set({1: [(1, x, 0) for x in range(10)]}))
    for keep in ("filtered", "pos_3"):
        (row,) = read(tmp_path, **COCO | {"keep": keep})
        assert len(row.boxes) == 10


def test_negatives_are_absent_and_as_many_as_asked_for(tmp_path):
    put(tmp_path / "a.json", coco_set(FOUND))
    for negatives, counts in ((0, [2, 2, 1]), (2, [4, 4, 2, 2, 3]), (9, [4, 4, 3, 4, 4]), ("all", [4] * 5)):
        rows = read(tmp_path, **COCO | {"negatives": negatives})
        assert [len(row.asked) for row in rows] == counts  # without negatives an empty picture asks nothing: no row
        assert all(set(row.labels) <= set(row.asked) and len(set(row.asked)) == len(row.asked) for row in rows)
    filtered = read(tmp_path, **COCO | {"keep": "filtered", "negatives": 3})[1]
    assert "cat" not in filtered.asked  # eleven cats are there, though none is a box of the row


def test_what_is_drawn_comes_from_the_seed_and_the_picture_alone(tmp_path):
    names = {i: f"name {i}" for i in range(30)}
    found = {i: [(i, 0, 0)] for i in range(20)}
    put(tmp_path / "a.json", coco_set(found, names))
    put(tmp_path / "b.json", coco_set(dict(reversed(found.items())), names))
    asked = [row.asked for row in read(tmp_path, **COCO | {"negatives": 5})]
    assert asked == [row.asked for row in read(tmp_path, **COCO | {"negatives": 5})]
    assert asked[::-1] == [row.asked for row in read(tmp_path, **COCO | {"negatives": 5, "annotations": "b.json"})]
    assert asked != [row.asked for row in read(tmp_path, **COCO | {"negatives": 5, "seed": 4})]
    assert len({row.asked for row in read(tmp_path, **COCO | {"negatives": "all"})}) == 20
    assert len({asked[i].index(f"name {i}") for i in range(20)}) > 2


def test_an_odinw_export_has_no_class_that_only_groups_others(tmp_path):
    data = coco_set({0: [(1, 0, 0)]}, {})
    data["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "raccoon", "supercategory": "animals"},
        {"id": 2, "name": "person", "supercategory": "person"},
        {"id": 3, "name": "raccoon", "supercategory": "animals"},
        {"id": 4, "name": "fox"},
    ]
    put(tmp_path / "a.json", data)
    (row,) = read(tmp_path, **COCO | {"negatives": "all"})
    assert sorted(row.asked) == ["fox", "person", "raccoon"]


def change(of, where, **values):
    return lambda data: data[of][where].update(values)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda data: data.pop("images"), r"a\.json: no images; mend"),
        (lambda data: data["images"].clear() or data["annotations"].clear(), r"a\.json: no images in it"),
        (change("annotations", 1, image_id=99), "annotation 1: image_id 99 is none of its images"),
        (change("categories", 1, id=1), "category 1: id 1 stands twice"),
        (change("categories", 1, name=7), "category 1: name is 7 where text"),
        (lambda data: data["categories"].append("x"), "category 4: an object is needed, not 'x'"),
    ],
)
def test_a_set_that_does_not_hold_together_is_named(tmp_path, fault, said):
    data = coco_set(FOUND)
    fault(data)
    put(tmp_path / "a.json", data)
    with pytest.raises(ValueError, match=said):
        read(tmp_path, **COCO)


@pytest.mark.parametrize(
    ("fault", "row", "said"),
    [
        (change("annotations", 1, category_id=99), 0, "annotation 1: category_id 99 is none of its categories"),
        (change("annotations", 1, category_id=[1]), 0, "annotation 1: category_id is .* where a whole number"),
        (change("annotations", 1, bbox=[1, 2, 3]), 0, r"annotation 1: bbox \[1, 2, 3\] is not a list of 4 numbers"),
        (change("annotations", 2, bbox=None), 1, "annotation 2: bbox None is not"),
        (change("images", 2, width="wide"), 2, "image 2: width is 'wide' where a whole number"),
        (change("images", 2, file_name=None), 2, "image 2: file_name is None where text"),
        (lambda data: data["images"].append({"id": [1]}), 5, "image 5: id is .* where a whole number"),
        (lambda data: data["images"].append(7), 5, "image 5: an object is needed, not 7"),
    ],
)
def test_a_malformed_picture_is_named_and_the_others_read(tmp_path, fault, row, said):
    data = coco_set(FOUND)
    put(tmp_path / "a.json", data)
    whole = {row.row: row for row in read(tmp_path, **COCO)}
    fault(data)
    put(tmp_path / "a.json", data)
    good = expect_fault(read(tmp_path, **COCO), rf"a\.json: {said}.*; mend or remove it")
    assert good == [one for number, one in whole.items() if number != row]


def test_of_two_pictures_with_one_id_neither_is_read(tmp_path):
    data = coco_set(FOUND)
    data["images"].append(data["images"][1] | {"file_name": "other.jpg"})
    put(tmp_path / "a.json", data)
    rows = read(tmp_path, **COCO)
    assert [row.row for row in rows if row.fault] == [1, 5] and "image 5: id 11 stands twice" in rows[1].fault


@pytest.mark.parametrize(
    ("text", "said"), [("[]", "an object is needed"), ("{", "1: not JSON"), ("[" * 10**6, "not JSON")]
)
def test_a_file_that_is_no_set_is_named(tmp_path, text, said):
    put(tmp_path / "a.json", text)
    with pytest.raises(ValueError, match=rf"a\.json:.*{said}"):
        read(tmp_path, **COCO)


# LVIS

LVIS = {"format": "lvis", "negatives": "all", "seed": 0}


def lvis_set():
    names = {1: "aerosol_can", 2: "bow_(weapon)", 3: "cow", 4: "hen"}
    data = coco_set({10: [(1, 0, 0), (3, 30, 0)], 11: []}, names, neg_category_ids=[2], not_exhaustive_category_ids=[3])
    for picture in data["images"]:
        del picture["file_name"]
        picture["coco_url"] = f"http://images.cocodataset.org/val2017/{picture['id']:012d}.jpg"
    return data


def test_lvis_asks_only_for_what_was_searched_for(tmp_path):
    put(tmp_path / "a.json", lvis_set())
    rows = read(tmp_path, **LVIS)
    assert rows[0].images == ("val2017/000000000010.jpg",)
    assert rows[0].labels == ("aerosol can",) and rows[0].boxes == ((0, 0, 10, 20),)
    assert sorted(rows[0].asked) == ["aerosol can", "bow (weapon)"] and rows[1].asked == ("bow (weapon)",)
    (alone,) = read(tmp_path, **LVIS | {"negatives": 0})
    assert alone.asked == ("aerosol can",)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"neg_category_ids": [9]}, "image 1: neg_category_ids holds 9, none of the categories"),
        ({"neg_category_ids": None}, "image 1: neg_category_ids is None where a list"),
        ({"not_exhaustive_category_ids": [[1]]}, "image 1: not_exhaustive_category_ids holds .* where an id"),
        ({"coco_url": 5}, "image 1: coco_url is 5"),
    ],
)
def test_malformed_lvis_is_named(tmp_path, fault, said):
    data = lvis_set()
    data["images"][1].update(fault)
    put(tmp_path / "a.json", data)
    assert [row.row for row in expect_fault(read(tmp_path, **LVIS), said)] == [0]
    data["annotations"][0]["bbox"] = 5
    put(tmp_path / "a.json", data)
    assert "annotation 0: bbox 5 is not" in read(tmp_path, **LVIS)[0].fault


# OVDEval

OVDEVAL = {"format": "ovdeval", "seed": 0}


def test_ovdeval_asks_for_the_listed_phrases_or_for_all(tmp_path):
    names = {0: "a red cup, large", 1: "a blue cup", 2: "a dog not on grass"}
    data = coco_set({0: [(0, 5, 0)], 1: []}, names, text=[names[0]], neg_text=[names[1], names[0]])
    data["images"][1].update(text=[])
    put(tmp_path / "a.json", data)
    first, second = read(tmp_path, asked="listed", **OVDEVAL)
    assert sorted(first.asked) == ["a blue cup", "a red cup, large"] and first.labels == ("a red cup, large",)
    assert sorted(second.asked) == ["a blue cup", "a red cup, large"] and second.boxes == ()
    assert sorted(read(tmp_path, asked="all", **OVDEVAL)[1].asked) == sorted(names.values())
    for key, value, said in (("text", "a", "text is 'a' where a list"), ("neg_text", [5], "neg_text holds 5")):
        changed = json.loads(json.dumps(data))
        changed["images"][0][key] = value
        put(tmp_path / "a.json", changed)
        rows = read(tmp_path, asked="listed", **OVDEVAL)
        assert [row.row for row in expect_fault(rows, rf"a\.json: image 0: {said}")] == [1]
    data["annotations"][0]["bbox"] = 5
    put(tmp_path / "a.json", data)
    expect_fault(read(tmp_path, asked="listed", **OVDEVAL), "annotation 0: bbox 5 is not")


# D³

D3 = {"format": "d3", "annotations": "d3", "sentences": "full", "negatives": None, "seed": 0}


def d3_tables():
    """Three groups of four sentences, the last of each of absence; three pictures, the first with sentences 1 and 4."""
    sentences = {
        n: {"id": n, "raw_sent": f"sentence {n}", "is_negative": n % 4 == 0, "group_id": [(n - 1) // 4]}
        for n in range(1, 13)
    }
    groups = {g: {"id": g, "inner_sent_id": np.arange(4 * g + 1, 4 * g + 5).tolist()} for g in range(3)}
    images = {
        i: {"id": i, "file_name": f"g{i}/{i}.jpg", "width": 640, "height": np.int64(480), "group_id": np.int32(i)}
        for i in range(3)
    }
    parts = np.array([[1.0, 2, 10, 10], [5, 0, 20, 4]])
    mask = [{"size": [480, 640], "counts": b"abc"}]
    annotations = {
        0: {"image_id": 0, "bbox": parts, "sent_id": [1, 4], "area": np.array([5], np.uint32), "segmentation": mask},
        1: {"image_id": 0, "bbox": [np.array([7, 7, 2, 2], ">f4")], "sent_id": np.array([9]), "segmentation": mask},
        2: {"image_id": np.int64(1), "bbox": [0, 0, 4, 4], "sent_id": [5], "segmentation": mask},
    }
    return {"sentences": sentences, "groups": groups, "images": images, "annotations": annotations}


def put_d3(folder, tables, protocol=4):
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(table, protocol=protocol))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_d3_pickles_with_numpy_in_them_are_read(tmp_path, protocol):
    put_d3(tmp_path / "d3", d3_tables(), protocol)
    rows = read(tmp_path, asked="inter", **D3)
    assert rows[0].images == ("g0/0.jpg",) and rows[0].sizes == ((640, 480),)
    assert rows[0].labels == ("sentence 1", "sentence 4", "sentence 9")
    assert rows[0].boxes == ((1, 0, 25, 12), (1, 0, 25, 12), (7, 7, 9, 9)) and rows[2].boxes == ()
    assert all(len(row.asked) == 12 for row in rows) and rows[0].asked != rows[1].asked


def test_d3_scenarios_and_subsets(tmp_path):
    put_d3(tmp_path / "d3", d3_tables())
    rows = read(tmp_path, asked="intra", **D3)
    assert sorted(rows[0].asked) == [f"sentence {n}" for n in (1, 2, 3, 4)]
    assert rows[0].labels == ("sentence 1", "sentence 4")  # sentence 9 is another group's: not asked for
    pres = read(tmp_path, asked="intra", **D3 | {"sentences": "pres"})
    assert sorted(pres[0].asked) == [f"sentence {n}" for n in (1, 2, 3)] and pres[0].labels == ("sentence 1",)
    absent = read(tmp_path, asked="inter", **D3 | {"sentences": "abs"})
    assert sorted(absent[0].asked) == [f"sentence {n}" for n in (12, 4, 8)] and absent[0].labels == ("sentence 4",)


def test_d3_training_draws_one_to_three_absent_sentences_of_other_groups(tmp_path):
    put_d3(tmp_path / "d3", d3_tables())
    counts = set()
    for seed in range(20):
        rows = read(tmp_path, asked="train", **D3 | {"negatives": [1, 3], "seed": seed})
        present = [{"sentence 1", "sentence 4", "sentence 9"}, {"sentence 5"}, set()]
        for picture, (row, there) in enumerate(zip(rows, present, strict=True)):
            drawn = set(row.asked) - there
            counts.add(len(drawn))
            assert there <= set(row.asked) and not drawn & {
                f"sentence {n}" for n in range(4 * picture + 1, 4 * picture + 5)
            }
    assert counts == {1, 2, 3}
    for bad in ({"asked": "train", "negatives": None}, {"asked": "intra", "negatives": [1, 3]}):
        with pytest.raises(ValidationError, match="belongs to asked: train"):
            read(tmp_path, **D3 | bad)
    with pytest.raises(ValidationError, match="fewest and most"):
        read(tmp_path, asked="train", **D3 | {"negatives": [3, 1]})


def test_d3_as_json_by_sentences(tmp_path):
    data = coco_set({0: [(1, 0, 0), (4, 9, 0)], 1: []}, {n: f"sentence {n}" for n in range(1, 9)})
    put(tmp_path / "a.json", data)
    settings = D3 | {"annotations": "a.json"}
    first, second = read(tmp_path, asked="inter", **settings)
    assert first.labels == ("sentence 1", "sentence 4") and len(second.asked) == 8
    assert len(read(tmp_path, asked="train", **settings | {"negatives": [2, 2]})[0].asked) == 4
    with pytest.raises(ValueError, match=r"asked: intra needs groups\.pkl"):
        read(tmp_path, asked="intra", **settings)
    with pytest.raises(ValueError, match="category 0: no is_negative"):
        read(tmp_path, asked="inter", **settings | {"sentences": "abs"})
    for category in data["categories"]:
        category["is_negative"] = category["id"] == 4
    put(tmp_path / "a.json", data)
    assert read(tmp_path, asked="inter", **settings | {"sentences": "abs"})[0].labels == ("sentence 4",)


@pytest.mark.parametrize(
    ("table", "key", "field", "value", "said"),
    [
        ("images", 1, "group_id", 9, "images.pkl: image 1: group_id 9 is none of groups"),
        ("images", 1, "file_name", 9, "d3: image 1: file_name is 9"),
        ("groups", 1, "inner_sent_id", None, "images.pkl: image 1: inner_sent_id is None"),
        ("annotations", 2, "bbox", [], r"annotations.pkl: annotation 2: bbox \[\] is not a list of 4"),
        ("annotations", 2, "bbox", [[1], [2]], r"annotations.pkl: annotation 2: bbox \[1\] is not"),
        ("annotations", 2, "sent_id", [[1]], "annotations.pkl: annotation 2: sent_id holds"),
    ],
)
def test_a_malformed_picture_of_d3_is_named_and_the_others_read(tmp_path, table, key, field, value, said):
    tables = d3_tables()
    tables[table][key][field] = value
    put_d3(tmp_path / "d3", tables)
    assert [row.row for row in expect_fault(read(tmp_path, asked="inter", **D3), said)] == [0, 2]


@pytest.mark.parametrize(
    ("table", "key", "field", "value", "said"),
    [
        ("annotations", 2, "image_id", 9, "annotations.pkl: annotation 2: image_id 9 is none of images"),
        ("annotations", 2, "bbox", np.array(["a"]), "annotations.pkl: not a pickle of plain data .*none of numbers"),
        ("annotations", 2, "bbox", np.array([{}]), "annotations.pkl: not a pickle of plain data .*none of numbers"),
        ("sentences", 3, "raw_sent", b"x", "sentences.pkl: sentence 3: raw_sent is b'x' where text"),
    ],
)
def test_d3_tables_that_do_not_hold_together_are_named(tmp_path, table, key, field, value, said):
    tables = d3_tables()
    tables[table][key][field] = value
    put_d3(tmp_path / "d3", tables)
    with pytest.raises(ValueError, match=said):
        read(tmp_path, asked="inter", **D3)


def test_d3_tables_that_are_missing_or_no_tables_are_named(tmp_path):
    put_d3(tmp_path / "d3", d3_tables() | {"images": [1]})
    with pytest.raises(ValueError, match=r"images\.pkl: records by id are needed, not \[1\]"):
        read(tmp_path, asked="inter", **D3)
    (tmp_path / "d3/groups.pkl").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"(images|groups)\.pkl"):
        read(tmp_path, asked="inter", **D3)
