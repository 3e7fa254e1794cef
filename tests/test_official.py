"""What a model said, scored as benchmarks score it: boxes out of completions, and the report's official figures."""

import json

import pytest

from tests.test_score_answers import boxed, dynamath, lines, rec_list, wemath  # noqa: F401  (a fixture)
from tests.test_score_boxes import generated, put
from vlmr1.evaluation.score import Choices, score
from vlmr1.report.official import official
from vlmr1.report.page import official_table
from vlmr1.sample import write_jsonl
from vlmr1.settings.data import Data
from vlmr1.sources import read_source


def said_of(truths, boxes, places):
    """A completion for each picture: its boxes in the file's order, as a model says them at half the picture's size."""
    names = {c["id"]: c["name"] for c in truths["categories"]}
    for place in places:
        image = truths["images"][place]
        found = [
            {"bbox_2d": [x / 2, y / 2, (x + w) / 2, (y + h) / 2], "label": names[box["category_id"]]}
            for box in boxes
            if box["image_id"] == image["id"]
            for x, y, w, h in [box["bbox"]]
        ]
        yield {
            "index": place,
            "image": [f"here/{image['file_name']}"],
            "completion": boxed(f"```json\n{json.dumps(found)}\n```" if found else "None"),
            "input_size": [240, 320],
        }


@pytest.mark.parametrize("benchmark", ["coco", "coco_filtered", "ovdeval"])
def test_completions_score_as_the_boxes_they_say(tmp_path, benchmark):
    truths, boxes = generated(11, scores=(1.0,))
    boxes = [box for box in boxes if min(box["bbox"][2:]) > 0]
    boxes.sort(key=lambda box: [image["id"] for image in truths["images"]].index(box["image_id"]))
    true, out = put(tmp_path / "a.json", truths), tmp_path / "out.json"
    whole = score(benchmark, true, put(tmp_path / "p.json", boxes), Choices(), out)
    path = tmp_path / "p.jsonl"
    write_jsonl(path, said_of(truths, boxes, range(6)))
    result = score(benchmark, true, path, Choices(), out)
    same = [key for key, value in whole.items() if isinstance(value, int | float) and key != "missing"]
    assert len(same) > 5 and [result[key] for key in same] == pytest.approx([whole[key] for key in same], abs=1e-9)
    assert (result["missing"], result["boxes_of_no_category"]) == (0, 0)
    # A part of the pictures: by themselves they are a set of their own.
    write_jsonl(path, said_of(truths, boxes, (0, 2, 3)))
    kept = {truths["images"][place]["id"] for place in (0, 2, 3)}
    part = truths | {
        "images": [image for image in truths["images"] if image["id"] in kept],
        "annotations": [one for one in truths["annotations"] if one["image_id"] in kept],
    }
    few = put(tmp_path / "few.json", [box for box in boxes if box["image_id"] in kept])
    want = score(benchmark, put(tmp_path / "b.json", part), few, Choices(), out)
    result = score(benchmark, true, path, Choices(asked_only=True), out)
    assert result[result["main"]] == pytest.approx(want[want["main"]], abs=1e-9) and (result["n"], result["of"]) == (
        3,
        6,
    )
    assert score(benchmark, true, path, Choices(), out)["missing"] == 3


def test_what_no_category_bears_is_counted_and_another_list_refused(tmp_path):
    truths, _ = generated(3)
    row = {"index": 0, "image": truths["images"][0]["file_name"]}
    row["completion"] = boxed('[{"bbox_2d": [1, 1, 9, 9], "label": "unicorn"}, {"bbox_2d": [1, 1, 9, 9]}]')
    true, out = put(tmp_path / "a.json", truths), tmp_path / "out.json"
    result = score("coco", true, lines(tmp_path / "p.jsonl", [row]), Choices(), out)
    assert (result["boxes_of_no_category"], result["predicted_boxes"], result["missing"]) == (2, 0, 5)
    with pytest.raises(ValueError, match=r"p\.jsonl: line 1: image is 'other\.jpg', of index 0 in the annot"):
        score("coco", true, lines(tmp_path / "p.jsonl", [row | {"image": "other.jpg"}]), Choices(), out)
    row = {"image_id": 0, "category_id": 0, "bbox": [1, 1, 2, 2], "score": 1}
    with pytest.raises(ValueError, match=r"p\.jsonl: one JSON array of .* is needed, in a file that ends in \.json"):
        score("coco", true, lines(tmp_path / "p.jsonl", [row]), Choices(), out)


def test_official_figures_of_a_runs_sources(tmp_path, rec_list):  # noqa: F811
    truths, boxes = generated(11, scores=(1.0,))
    for image in truths["images"]:
        image |= {"text": ["c0", "c1", "c2"], "neg_text": ["c3"]}
    put(tmp_path / "ovd.json", truths)
    dynamath(tmp_path)
    wemath(tmp_path)
    common = {"role": "evaluate", "images": "."}
    questions = common | {"reward": "auto", "only": None}
    sources = {
        "boxes": common
        | {"format": "ovdeval", "annotations": "ovd.json", "asked": "listed", "reward": "odLength", "seed": 1},
        "one": common | {"format": "rec_json", "annotations": "rec.json", "frame": "pixels"},
        "sums": questions | {"format": "dynamath", "annotations": "dynamath.jsonl"},
        "steps": questions | {"format": "wemath", "annotations": "wemath.json"},
        "part": questions | {"format": "dynamath", "annotations": "dynamath.jsonl", "only": "x"},
        "train": common | {"role": "train", "format": "rec_json", "annotations": "rec.json", "frame": "pixels"},
    }
    data = Data.model_validate({"root": str(tmp_path), "sources": sources})
    said = tmp_path / "said"
    write_jsonl(said / "boxes-greedy.jsonl", said_of(truths, boxes, (0, 1, 2, 4)))
    for name in ("one", "sums", "steps"):
        rows = list(read_source(data.sources[name], tmp_path))[: {"one": 2}.get(name, 3)]
        answers = ({"index": row.row, "completion": boxed(row.answer or list(row.boxes[0]))} for row in rows)
        write_jsonl(said / f"{name}-greedy.jsonl", answers)
    write_jsonl(said / "steps-greedy.jsonl", [{"index": 0, "completion": boxed("A")}])
    found = official(data, said)
    assert list(found) == ["boxes", "one", "sums", "steps"]
    assert (found["boxes"]["main"], found["boxes"]["n"], found["boxes"]["of"]) == ("nms_ap", 4, 6)
    assert (found["one"]["main"], found["one"]["acc_0.5"], found["one"]["n"], found["one"]["of"]) == (
        "acc_0.5",
        1,
        2,
        3,
    )
    assert (found["sums"]["main"], found["sums"]["worst_case"], found["sums"]["n"]) == ("worst_case", 1, 3)
    assert "its parts are 1 of" in found["steps"]["unscored"]
    head, *rows = official_table({"base": "Base", "grpo": "GRPO"}, {"base": found, "grpo": found})
    assert head == ["source", "benchmark", "figure", "n", "Base", "GRPO"]
    assert rows[1][:4] == ["one", "rec", "acc_0.5", "2 of 3"] and rows[1][4].startswith("1.000 [0.")
    assert rows[3][2].startswith("not scored: ")
