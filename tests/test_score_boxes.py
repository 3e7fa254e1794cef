"""Detection figures from files, against pycocotools itself on generated cases, and by hand where it has none."""

import contextlib
import io
import json
import pickle
import random

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlmr1.evaluation.annotations import read_truths
from vlmr1.evaluation.ovdeval import FILES, suppressed
from vlmr1.evaluation.predictions import read_detections
from vlmr1.evaluation.score import Choices, score

SIZES = ("small", "medium", "large")
STATS = [  # in COCOeval's order
    *("AP", "AP50", "AP75", *(f"AP_{size}" for size in SIZES)),
    *("AR_1", "AR_10", "AR_100", *(f"AR_{size}" for size in SIZES)),
]


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def official(truths, boxes, most=None):
    """COCOeval's twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = json.loads(json.dumps(truths))
        known.createIndex()
        run = COCOeval(known, known.loadRes(json.loads(json.dumps(boxes))), "bbox")
        if most:
            run.params.maxDets = most
        run.evaluate()
        run.accumulate()
        if most:
            precision = run.eval["precision"][:, :, :, 0, -1]
            return precision[precision > -1].mean()
        run.summarize()
    return run.stats


def generated(seed, first=1, scores=(1.0, 1.0, 0.5, None), crowd=0.15, many=0):
    """A set and predictions with ties, crowds, a category without boxes, duplicates, false alarms, shuffled lists."""
    r = random.Random(seed)
    images = [{"id": 3 * i + r.randrange(3), "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(6)]
    categories = [{"id": c, "name": f"c{c}"} for c in range(4)]
    annotations, boxes = [], []
    for image in images:
        for _ in range(r.choice([0, 1, 3, 9])):
            w, h = r.choice([8, 20, 60, 200]), r.choice([8, 20, 60, 200])
            box = [r.randrange(300), r.randrange(200), w, h]
            truth = {
                "id": first + len(annotations),
                "image_id": image["id"],
                "category_id": r.randrange(3),
                "bbox": box,
            }
            annotations.append(truth | {"area": w * h * r.choice([1, 0.5]), "iscrowd": int(r.random() < crowd)})
    for truth in annotations:
        for _ in range(r.choice([0, 1, 2, 8])):
            q = r.choice([0, 0, 5, 20])
            box = [max(0, v + r.randint(-q, q)) for v in truth["bbox"]]
            category = truth["category_id"] if r.random() < 0.8 else r.randrange(4)
            boxes.append({"image_id": truth["image_id"], "category_id": category, "bbox": box})
    for _ in range(many):
        box = [r.randrange(300), r.randrange(200), 50, 50]
        boxes.append({"image_id": images[0]["id"], "category_id": 0, "bbox": box})
    r.shuffle(images)
    r.shuffle(boxes)
    for box in boxes:
        one = r.choice(scores)
        box["score"] = r.random() if one is None else one
    return {"images": images, "categories": categories, "annotations": annotations}, boxes


def scored(folder, benchmark, truths, boxes, **more):
    return score(
        benchmark, put(folder / "a.json", truths), put(folder / "p.json", boxes), Choices(**more), folder / "out.json"
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("first", "many"), [(1, 0), (0, 0), (1, 250)])
def test_coco_equals_pycocotools(tmp_path, seed, first, many):
    truths, boxes = generated(seed, first, many=many)
    if not boxes or not truths["annotations"]:
        pytest.skip("pycocotools itself fails on nothing")
    result = scored(tmp_path, "coco", truths, boxes)
    assert [result[name] for name in STATS] == pytest.approx(official(truths, boxes).tolist(), abs=1e-9)
    assert json.loads((tmp_path / "out.json").read_text()) == result
    turned = official(truths, boxes[::-1])[0]
    assert result["order_sensitivity"]["AP_reversed"] == pytest.approx(turned, abs=1e-9)


def test_the_annotation_with_id_0(tmp_path):
    truths, boxes = generated(3, first=0, scores=(1.0,), crowd=0)
    boxes = [{k: t[k] for k in ("image_id", "category_id", "bbox")} | {"score": 1.0} for t in truths["annotations"]]
    result = scored(tmp_path, "coco", truths, boxes)
    assert result["AP"] == pytest.approx(official(truths, boxes)[0], abs=1e-9) and result["AP"] < 1
    assert result["AP_id_0_mended"] == pytest.approx(1.0)  # every box is found
    for truth in truths["annotations"]:
        truth["id"] += 1
    result = scored(tmp_path, "coco", truths, boxes)
    assert result["AP"] == pytest.approx(1.0) and "AP_id_0_mended" not in result


def test_nothing_predicted_is_missing_and_wrong(tmp_path):
    truths, _ = generated(3)
    result = scored(tmp_path, "coco", truths, [])
    assert result["AP"] == result["greedy_recall"] == result["greedy_precision"] == 0
    assert result["missing"] == result["n"] == 6
    assert result["AP_low"] == result["AP_high"] == 0


def one_picture(*boxes):
    return {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": list(b), "area": b[2] * b[3], "iscrowd": 0}
            for n, (c, b) in enumerate(boxes, 1)
        ],
    }


def said(category, box, value=1.0, image=1):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": value}


def test_greedy_precision_and_recall_by_hand(tmp_path):
    truths = one_picture((1, (0, 0, 10, 10)), (1, (0, 4, 10, 10)), (2, (50, 50, 20, 20)))
    # The first overlaps both cups, the second more; the highest IoU chooses first, so both are found.
    boxes = [said(1, (0, 1, 10, 10)), said(1, (0, 0, 10, 10)), said(1, (50, 50, 20, 20)), said(2, (0, 0, 5, 5))]
    result = scored(tmp_path, "coco", truths, boxes)
    assert result["greedy_precision"] == 2 / 4 and result["greedy_recall"] == 2 / 3


def test_coco_filtered_drops_pairs_whole(tmp_path):
    many = [(1, (7 * i, 0, 5, 5)) for i in range(11)]
    truths = one_picture(*many, (2, (50, 50, 20, 20)))
    boxes = [said(1, (0, 0, 5, 5)), said(2, (50, 50, 20, 20))]
    result = scored(tmp_path, "coco_filtered", truths, boxes)
    assert (result["pairs"], result["pairs_dropped"], result["predicted_boxes"]) == (1, 1, 1)
    assert result["AP"] == pytest.approx(1.0)
    assert scored(tmp_path, "coco_filtered", one_picture(*many[:10]), boxes)["pairs_dropped"] == 0
    boxes = [said(2, (50, 50, 20, 20)), said(1, (0, 0, 5, 5))]
    fewer = [t for t in truths["annotations"] if t["category_id"] == 2]
    charged = official(truths | {"annotations": fewer}, boxes)[0]
    assert result["AP_dropped_pairs_charged"] == pytest.approx(charged)


def suppressed_by_hand(truths, boxes):
    """NMS-AP's rule, once more and slowly."""

    def near(a, b):
        w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        shared = w * h if w > 0 and h > 0 else 0
        union = a[2] * a[3] + b[2] * b[3] - shared
        return union and shared / union > 0.5

    kept, gone = set(), set()
    for truth in truths["annotations"]:
        close = [
            i
            for i, box in enumerate(boxes)
            if box["image_id"] == truth["image_id"] and near(truth["bbox"], box["bbox"])
        ]
        if close:
            best = max(close, key=lambda i: (boxes[i]["score"], i))
            kept.add(best)
            gone |= set(close) - {best}
    return [box for i, box in enumerate(boxes) if i in kept or i not in gone]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scores", [(1.0,), (1.0, 0.5), (None,)])
def test_ovdeval_keeps_by_its_rule_then_equals_pycocotools(tmp_path, seed, scores):
    truths, boxes = generated(seed, 0, scores, crowd=0)
    if not boxes:
        pytest.skip("nothing predicted")
    result = scored(tmp_path, "ovdeval", truths, boxes)
    kept = suppressed_by_hand(truths, boxes)
    known = read_truths(tmp_path / "a.json")
    ours = suppressed(known, read_detections(tmp_path / "p.json", known))
    assert [(one.image, one.category, list(one.box), one.score) for one in ours] == [
        (box["image_id"], box["category_id"], box["bbox"], box["score"]) for box in kept
    ]
    assert (result["n_before"], result["n_after"]) == (len(boxes), len(kept))
    assert result["ap"] == pytest.approx(official(truths, boxes)[0], abs=1e-9)
    assert result["nms_ap"] == pytest.approx(official(truths, kept)[0], abs=1e-9)
    turned = suppressed_by_hand(truths, boxes[::-1])
    assert result["order_sensitivity"]["nms_ap_reversed"] == pytest.approx(official(truths, turned)[0], abs=1e-9)
    rows = [row for row in result["per_category"].values()]
    assert result["nms_ap"] == pytest.approx(np.mean([row["nms_ap"] for row in rows]))


def test_the_last_listed_of_equals_stays(tmp_path):
    truths = one_picture((1, (0, 0, 10, 10)))
    right, wrong = said(1, (0, 0, 10, 10)), said(2, (0, 0, 10, 9))
    assert scored(tmp_path, "ovdeval", truths, [wrong, right])["nms_ap"] == pytest.approx(1.0)
    result = scored(tmp_path, "ovdeval", truths, [right, wrong])
    assert result["nms_ap"] == 0 and result["order_sensitivity"]["nms_ap_difference"] == pytest.approx(1.0)


def test_ovdeval_overall_is_the_mean_of_five_aspects(tmp_path):
    each = {}
    for seed, name in enumerate(FILES):
        truths, boxes = generated(seed + 20, 1)
        put(tmp_path / "a" / f"{name}.json", truths)
        put(tmp_path / "p" / name / "results.json", boxes)
        each[name] = scored(tmp_path, "ovdeval", truths, boxes)["nms_ap"]
    result = score("ovdeval_overall", tmp_path / "a", tmp_path / "p", Choices(), tmp_path / "out.json")
    aspects = [
        np.mean([each[n] for n in names]) for names in (FILES[:3], FILES[3:5], FILES[5:6], FILES[6:7], FILES[7:])
    ]
    assert result["overall_nms_ap"] == pytest.approx(np.mean(aspects))
    assert result["overall_nms_ap_low"] < result["overall_nms_ap"] < result["overall_nms_ap_high"]
    (tmp_path / "p" / "logo" / "results.json").unlink()
    with pytest.raises(
        ValueError,
        match=r"/p: no predictions of set logo, which are logo\.json, \.jsonl",
    ):
        score("ovdeval_overall", tmp_path / "a", tmp_path / "p", Choices(), tmp_path / "out.json")


def test_odinw_is_the_mean_of_its_sets(tmp_path):
    each = []
    for seed in (1, 2):
        truths, boxes = generated(seed)
        put(tmp_path / "a" / f"set{seed}" / "test" / "annotations.json", truths)
        put(tmp_path / "p" / f"set{seed}.json", boxes)
        each.append(official(truths, boxes)[0])
    result = score("odinw", tmp_path / "a", tmp_path / "p", Choices(), tmp_path / "out.json")
    assert result["mean_AP"] == pytest.approx(np.mean(each)) and result["sets"] == 2
    assert result["parts"]["set2"]["AP"] == pytest.approx(each[1])


def federated(truths, negative, partial=()):
    for image in truths["images"]:
        image |= {"neg_category_ids": list(negative), "not_exhaustive_category_ids": list(partial)}
    for category, frequency in zip(truths["categories"], "rcff", strict=False):
        category["frequency"] = frequency
    return truths


@pytest.mark.parametrize("seed", range(12))
def test_lvis_equals_pycocotools_where_all_is_annotated(tmp_path, seed):
    truths, boxes = generated(seed, crowd=0, many=250 if seed % 3 == 0 else 0)
    boxes = [box for box in boxes if box["bbox"][2] and box["bbox"][3]]
    if not boxes:
        pytest.skip("nothing predicted")
    for truth in truths["annotations"]:
        del truth["iscrowd"]
    result = scored(tmp_path, "lvis", federated(truths, range(4)), boxes)
    for truth in truths["annotations"]:
        truth["iscrowd"] = 0
    assert result["AP"] == pytest.approx(official(truths, boxes, [1, 10, 300]), abs=1e-9)


def test_lvis_by_hand(tmp_path):
    truths = federated(one_picture((1, (0, 0, 10, 10)), (2, (50, 50, 20, 20))), [], [])
    truths["categories"] += [{"id": 3, "name": "owl", "frequency": "f"}]
    right = [said(1, (0, 0, 10, 10), 0.5), said(2, (50, 50, 20, 20), 0.5)]
    unknown = [said(3, (0, 0, 50, 50), 0.9)]  # nobody looked for owls: neither right nor wrong
    result = scored(tmp_path, "lvis", truths, unknown + right)
    assert (result["AP"], result["APr"], result["APc"], result["APf"]) == pytest.approx((1.0, 1.0, 1.0, -1.0))
    assert result["predicted_boxes_counted"] == 2
    alarm = [said(2, (0, 0, 9, 9), 0.9)]
    assert scored(tmp_path, "lvis", truths, alarm + right)["APc"] == pytest.approx(0.5)
    truths["images"][0]["not_exhaustive_category_ids"] = [2]  # that may be a dog nobody marked
    assert scored(tmp_path, "lvis", truths, alarm + right)["APc"] == pytest.approx(1.0)
    crowd_out = [said(1, (60, 60, 5, 5), 0.9) for _ in range(300)]  # the 300 best of the picture leave no room
    assert scored(tmp_path, "lvis", truths, crowd_out + right)["AP"] == 0


def test_d3_by_scenario(tmp_path):
    truths, boxes = generated(4, 1)
    ids = [image["id"] for image in truths["images"]]
    tables = {
        "sentences": {c["id"]: {"raw_sent": c["name"], "is_negative": c["id"] == 2} for c in truths["categories"]},
        "images": {id_: {"group_id": n % 2} for n, id_ in enumerate(ids)},
        "groups": {0: {"inner_sent_id": np.array([0, 1])}, 1: {"inner_sent_id": [2, 3]}},
    }
    put(tmp_path / "d3" / "d3_json" / "d3_full_annotations.json", truths)
    put(tmp_path / "d3" / "d3_json" / "d3_pres_annotations.json", truths)
    for name, table in tables.items():
        path = tmp_path / "d3" / "d3_pkl" / f"{name}.pkl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(table))
    put(tmp_path / "p.json", boxes)

    def run(scenario):
        return score("d3", tmp_path / "d3", tmp_path / "p.json", Choices(scenario), tmp_path / "out.json")

    def of(categories, boxes):
        kept = [t for t in truths["annotations"] if t["category_id"] in categories]
        some = [c for c in truths["categories"] if c["id"] in categories]
        return official(truths | {"annotations": kept, "categories": some}, boxes)[0]

    inner = {id_: [0, 1] if n % 2 == 0 else [2, 3] for n, id_ in enumerate(ids)}
    asked = [box for box in boxes if box["category_id"] in inner[box["image_id"]]]
    for scenario, said_there in (("inter", boxes), ("intra", asked)):
        result = run(scenario)
        want = (of({0, 1, 2, 3}, said_there), of({0, 1, 3}, said_there), of({2}, said_there))
        assert (result["FULL"], result["PRES"], result["ABS"]) == pytest.approx(want, abs=1e-9)
    assert result["left_out"] == len(boxes) - len(asked) > 0
    with pytest.raises(ValueError, match="--scenario: d3 needs one, intra or inter"):
        run(None)


def test_two_models_on_the_same_pictures(tmp_path):
    truths, boxes = generated(5, scores=(1.0,))
    here, there = put(tmp_path / "p.json", boxes), put(tmp_path / "q.json", boxes[: len(boxes) // 3])
    a = put(tmp_path / "a.json", truths)
    same = score("coco", a, here, Choices(), tmp_path / "out.json", against=here)["against"]
    assert same["difference"] == 0 and same["noise"] and "noise" in same["says"]
    worse = score("coco", a, there, Choices(), tmp_path / "out.json", against=here)["against"]
    assert worse["difference_low"] < worse["difference"] < worse["difference_high"] and worse["difference"] < 0


GOOD = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (GOOD | {"image_id": 7}, "row 1: image_id 7 is none of"),
        (GOOD | {"category_id": 9}, "row 1: category_id 9 is none of"),
        (GOOD | {"bbox": [0, 0, 5]}, "row 1: bbox .* is not a list of 4 numbers"),
        (GOOD | {"bbox": [0, 0, -5, 5]}, "row 1: bbox .* sides ≥ 0"),
        (GOOD | {"bbox": [0, 0, float("nan"), 5]}, "row 1: bbox .* finite"),
        (GOOD | {"score": "high"}, "row 1: score holds 'high' where a number"),
        ({k: v for k, v in GOOD.items() if k != "score"}, "row 1: score holds None"),
        ("box", "row 1: an object is needed"),
    ],
)
def test_malformed_predictions_are_refused_by_their_row(tmp_path, row, fault):
    with pytest.raises(ValueError, match=rf"p\.json: {fault}"):
        scored(tmp_path, "coco", one_picture((1, (0, 0, 5, 5))), [GOOD, row])


def test_malformed_annotations_are_refused(tmp_path):
    truths = one_picture((1, (0, 0, 5, 5)), (1, (9, 9, 5, 5)))
    truths["annotations"][1]["id"] = 1
    with pytest.raises(ValueError, match=r"a\.json: annotation 1: id 1 stands twice"):
        scored(tmp_path, "coco", truths, [GOOD])
    with pytest.raises(ValueError, match=r"p\.json: one JSON array of \{image_id, category_id, bbox, score\}"):
        scored(tmp_path, "coco", one_picture((1, (0, 0, 5, 5))), {"boxes": []})
