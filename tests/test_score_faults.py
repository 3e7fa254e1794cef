"""What `vlmr1 score` says of files that are not what it needs, and of results that nobody should take as they stand."""

import gzip
import json
import warnings

import pytest

from tests.test_score_answers import boxed, gui_list, lines, rec_list  # noqa: F401  (a fixture)
from tests.test_score_boxes import generated, put
from vlmr1.cli import main
from vlmr1.evaluation.score import Choices, score, table

RIGHT = {"bbox": [1, 1, 5, 5], "score": 1.0}


def one_set(**image):
    """One picture of 40 x 30 with one cat."""
    image = {"id": 139, "width": 40, "height": 30, "file_name": "a.jpg"} | image
    truth = {"id": 1, "image_id": 139, "category_id": 17, "bbox": [1, 1, 5, 5]}
    return {"images": [image], "categories": [{"id": 17, "name": "cat"}], "annotations": [truth]}


def fault(folder, benchmark, annotations, predictions, against=None, output=None):
    """What the verb says of the files, without the test's folder."""
    command = ["score", benchmark, "--annotations", str(annotations), "--predictions", str(predictions)]
    command += ["--against", str(against)] if against else []
    with pytest.raises(SystemExit) as stop:
        main([*command, "--json", str(output or folder / "out.json")])
    assert "\n" not in str(stop.value) and len(str(stop.value)) < 420
    return str(stop.value).removeprefix("vlmr1 score: ").replace(f"{folder}/", "")


# The files.


def test_no_input_is_overwritten(tmp_path, rec_list):  # noqa: F811
    said = lines(tmp_path / "p.jsonl", [{"index": 0, "completion": "x"}])
    other = lines(tmp_path / "q.jsonl", [{"index": 0, "completion": "x"}])
    kept = {path: path.read_bytes() for path in (rec_list, said, other)}
    for option, path in (("--annotations", rec_list), ("--predictions", said), ("--against", other)):
        says = fault(tmp_path, "rec", rec_list, said, other, output=path)
        assert says == f"--json {path.name}: is the file of {option}, which it would overwrite; name another"
    assert fault(tmp_path, "rec", rec_list, said, output=".") == "--json .: a folder; name a file in it"
    assert {path: path.read_bytes() for path in kept} == kept
    (tmp_path / "sets").mkdir()
    says = fault(tmp_path, "odinw", tmp_path / "sets", tmp_path / "sets", output=tmp_path / "sets/out.json")
    assert says.startswith("--json sets/out.json: lies in the folder of --annotations, whose lists are read")


def test_the_option_of_a_missing_file_is_named(tmp_path, rec_list):  # noqa: F811
    said = lines(tmp_path / "p.jsonl", [{"index": 0, "completion": "x"}])
    assert fault(tmp_path, "rec", tmp_path / "no.json", said) == "--annotations no.json: not found"
    assert fault(tmp_path, "rec", rec_list, tmp_path / "no.jsonl") == "--predictions no.jsonl: not found"
    assert fault(tmp_path, "rec", rec_list, said, tmp_path / "no.jsonl") == "--against no.jsonl: not found"
    (tmp_path / "d").mkdir()
    assert fault(tmp_path, "rec", rec_list, tmp_path / "d").startswith("--predictions d: a folder where a file is")
    assert fault(tmp_path, "odinw", rec_list, tmp_path / "d").startswith(
        "--annotations rec.json: a file where a folder"
    )
    assert fault(tmp_path, "d3", tmp_path / "d", said) == "--scenario: d3 needs one, intra or inter"
    with pytest.raises(FileNotFoundError, match=r"/d: no d3_full_annotations\.json below it"):
        score("d3", tmp_path / "d", said, Choices("intra"), tmp_path / "out.json")
    put(tmp_path / "a/one.json", one_set())
    put(tmp_path / "p/two.json", [])
    assert fault(tmp_path, "odinw", tmp_path / "a", tmp_path / "p").startswith(
        "p: no predictions of set one, which are"
    )
    assert fault(tmp_path, "ovdeval_overall", tmp_path / "a", tmp_path / "p").startswith(
        "a: no annotations of set celeb"
    )
    assert fault(tmp_path, "coc", rec_list, said).startswith("coc: no such benchmark (did you mean coco?); one of rec")


def test_files_of_another_form_are_told_by_the_form_that_is_needed(tmp_path, rec_list):  # noqa: F811
    truths = put(tmp_path / "a.json", one_set())
    row = RIGHT | {"image_id": 139, "category_id": 17}
    two = lines(tmp_path / "two.json", [row, row])
    form = "one JSON array of {image_id, category_id, bbox, score} is needed"
    assert fault(tmp_path, "coco", truths, two) == f"two.json:2: not JSON (Extra data); {form}"
    assert fault(tmp_path, "coco", truths, lines(tmp_path / "one.json", [row])).startswith(f"one.json: {form}")
    one_array = "array.jsonl:1: this is one JSON array; write its items one a line"
    array = put(tmp_path / "array.jsonl", [{"index": 0, "completion": "x"}])
    assert fault(tmp_path, "rec", rec_list, array) == one_array
    array.write_text(json.dumps([{"index": 0}], indent=2))
    assert fault(tmp_path, "rec", rec_list, array) == one_array
    array.write_bytes(gzip.compress(b"{}"))
    assert fault(tmp_path, "rec", rec_list, array) == "array.jsonl:1: not UTF-8 text; it is compressed: unpack it"
    array.write_text("")
    assert fault(tmp_path, "rec", rec_list, array) == "array.jsonl: no rows in it"
    assert fault(tmp_path, "lvis", truths, put(tmp_path / "p.json", [row])).endswith(
        "a.json: no image has neg_category_ids, so it looks like COCO; score it as coco"
    )


def test_swapped_files_are_recognised(tmp_path, rec_list):  # noqa: F811
    said = lines(tmp_path / "p.jsonl", [{"index": 0, "completion": "x" * 3000}])
    swapped = "holds predictions: is it swapped with --predictions?"
    assert fault(tmp_path, "rec", said, rec_list) == f"--annotations p.jsonl: {swapped}"
    truths = put(tmp_path / "a.json", one_set(more="y" * 3000))
    boxes = put(tmp_path / "p.json", [RIGHT | {"image_id": 139, "category_id": 17}] * 500)
    assert fault(tmp_path, "coco", boxes, truths) == f"--annotations p.json: {swapped}"
    assert fault(tmp_path, "coco", truths, truths) == (
        "a.json: annotations where predictions are needed: is it swapped with --annotations?"
    )
    assert fault(tmp_path, "coco", truths, put(tmp_path / "q.json", [[["z" * 3000] * 9] * 9])).count("z") < 80


# The rows.


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image_id": "139"}, "image_id '139' is none of a.json's images; write 139 without quotes"),
        ({"category_id": "17"}, "category_id '17' is none of a.json's categories; write 17 without quotes"),
        ({"image_id": 5}, "image_id 5 is none of a.json's images, which are 139 to 139"),
    ],
)
def test_an_id_of_the_other_type_is_told(tmp_path, row, says):
    boxes = put(tmp_path / "p.json", [RIGHT | {"image_id": 139, "category_id": 17} | row])
    assert fault(tmp_path, "coco", put(tmp_path / "a.json", one_set()), boxes).startswith(f"p.json: row 0: {says}")


def test_ids_are_ranged_as_numbers(tmp_path):
    path = gui_list(tmp_path, ["No Defect"] * 40)  # from 61 to 100
    said = lines(tmp_path / "p.jsonl", [{"id": 7, "completion": "x"}])
    assert "id 7 is no question of the annotations; they are 61 to 100;" in fault(tmp_path, "gui", path, said)


def test_predictions_for_another_list_are_refused(tmp_path, rec_list):  # noqa: F811
    from vlmr1.tasks.rec import problem

    row = {"index": 0, "completion": "x", "problem": problem("cup"), "image": ["images/a.jpg"]}
    row |= {"truth": "[10.13, 10, 30, 30]", "size": [[100, 80]]}
    half = {"truth": "[5.06, 5, 15, 15]", "size": [[50, 40]]}  # its picture was stored at half the size
    for same in ({}, half, {"problem": "Cup"}, {"image": "a.jpg"}, {"truth": [10.125, 10, 30, 30]}):
        score("rec", rec_list, lines(tmp_path / "p.jsonl", [row | same]), Choices(), tmp_path / "out.json")
    for other, key in (
        ({"problem": problem("dog")}, "problem"),
        ({"image": ["b.jpg"]}, "image"),
        ({"truth": "[10.2, 10, 30, 30]"}, "truth"),
        ({"truth": "None"}, "truth"),
        ({"truth": "what?"}, "truth"),
    ):
        says = fault(tmp_path, "rec", rec_list, lines(tmp_path / "p.jsonl", [row | other]))
        assert says.startswith(f"p.jsonl: line 1: {key} is ") and "of index 0 in the annotations it is" in says
        assert "are these predictions for another list?" in says
    path = gui_list(tmp_path, ["No Defect"] * 2)
    said = lines(tmp_path / "p.jsonl", [{"index": 1, "completion": "x", "truth": "Navigation Logic Error"}])
    assert "truth is 'Navigation Logic Error', of index 1" in fault(tmp_path, "gui", path, said)


def test_several_samples_an_item_are_told_from_answers_given_twice(tmp_path, rec_list):  # noqa: F811
    rows = [{"index": 0, "sample": number, "completion": "x"} for number in (0, 1)]
    says = fault(tmp_path, "rec", rec_list, lines(tmp_path / "p.jsonl", rows))
    assert says.startswith(
        "p.jsonl: line 2: index 0 has several samples, and a score takes one answer a question; keep"
    )
    score("rec", rec_list, lines(tmp_path / "p.jsonl", rows[:1]), Choices(), tmp_path / "out.json")


def test_a_misspelt_optional_field_is_refused_and_others_are_passed_over(tmp_path, rec_list):  # noqa: F811
    row = {"index": 0, "completion": "x"}
    for name in ("inputsize", "input-size", "Input_Size", "input_sizes"):
        says = fault(tmp_path, "rec", rec_list, lines(tmp_path / "p.jsonl", [row | {name: [1, 2]}]))
        assert says.startswith(f"p.jsonl: line 1: no field is named '{name}'; did you mean input_size?")
    path = lines(tmp_path / "p.jsonl", [row | {"size": [[100, 80]], "note": "y", "image_id": 3}])
    score("rec", rec_list, path, Choices(), tmp_path / "out.json")


# The results.


def test_missing_predictions_are_told_on_both_sides_and_loudly(tmp_path, capsys):
    path = gui_list(tmp_path, ["No Defect"] * 10)
    rows = [{"index": n, "completion": boxed("No Defect")} for n in range(10)]
    ours, theirs = lines(tmp_path / "p.jsonl", rows[:9]), lines(tmp_path / "q.jsonl", rows[:4])
    result = score("gui", path, ours, Choices(), tmp_path / "out.json", theirs)
    assert (result["missing"], result["against"]["missing"], result["against"]["n"]) == (1, 6, 10)
    assert result["predictions"] == str(ours) and result["against"]["predictions"] == str(theirs)
    said = table(result)
    assert "  missing there: 6, here: 1" in said and "LOOK: 6 of 10 have no prediction, and count as wrong" in said
    assert "LOOK" not in table(score("gui", path, ours, Choices(), tmp_path / "out.json"))


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ([20, 10, 39, 29], "1 of 1 boxes leave their picture: are they [x, y, width, height] in pixels?"),
        ([0.1, 0.1, 0.5, 0.9], "all 1 boxes lie within one pixel: are they [x, y, width, height] in pixels?"),
        ([1, 1, 38, 28], None),
    ],
)
def test_boxes_of_another_form_are_doubted(tmp_path, box, says):
    boxes = put(tmp_path / "p.json", [{"image_id": 139, "category_id": 17, "bbox": box, "score": 1}])
    result = score("coco", put(tmp_path / "a.json", one_set()), boxes, Choices(), tmp_path / "out.json")
    assert result.get("notes", [None]) == [says] and ("LOOK" in table(result)) == (says is not None)
    put(tmp_path / "sets/one.json", one_set()), put(tmp_path / "said/one.json", json.loads(boxes.read_text()))
    result = score("odinw", tmp_path / "sets", tmp_path / "said", Choices(), tmp_path / "out.json")
    assert result.get("notes", [None]) == [says and f"one: {says}"]


def test_a_files_path_and_the_number_of_its_boxes_have_names_of_their_own(tmp_path):
    truths, boxes = generated(1)
    path = put(tmp_path / "p.json", boxes)
    result = score("coco", put(tmp_path / "a.json", truths), path, Choices(), tmp_path / "out.json")
    assert result["predictions"] == str(path) and result["predicted_boxes"] == len(boxes)


def test_a_box_beyond_all_measure_is_wrong_and_no_more(tmp_path):
    huge = {"image_id": 139, "category_id": 17, "bbox": [0, 0, 1e308, 1e308], "score": 1}
    path = put(tmp_path / "p.json", [huge])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = score("coco", put(tmp_path / "a.json", one_set()), path, Choices(), tmp_path / "out.json")
    assert result["AP"] == result["greedy_precision"] == 0


def test_a_proportion_that_is_whole_has_no_certain_interval(tmp_path):
    rows = [
        {"question": "Sum?", "answer": "1", "image": "a.jpg", "answer_type": "float", "qid": q, "varid": v}
        for q in range(20)
        for v in (1, 2, 3)
    ]
    said = lines(tmp_path / "p.jsonl", [{"index": n, "completion": boxed("1")} for n in range(60)])
    result = score("dynamath", lines(tmp_path / "a.jsonl", rows), said, Choices(), tmp_path / "out.json")
    assert result["accuracy"] == result["accuracy_high"] == 1
    assert result["accuracy_low"] == result["worst_case_low"] == pytest.approx(0.8389, abs=1e-4)  # Wilson, 20 of 20
    boxes = put(tmp_path / "p.json", [RIGHT | {"image_id": 139, "category_id": 17}])
    result = score("coco", put(tmp_path / "b.json", one_set()), boxes, Choices(), tmp_path / "out.json")
    assert result["greedy_precision"] == 1 and result["greedy_precision_low"] == pytest.approx(0.2065, abs=1e-4)
