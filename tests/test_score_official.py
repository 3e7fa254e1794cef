"""Detection figures against official code on real annotations; run by `pytest -m official` where both are at hand.

`VLMR1_REAL` names a folder of COCO's `instances*.json` files, looked for at any depth; LVIS's code is the package
`lvis`. Neither is needed by the default run, whose sets are generated.
"""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from tests.test_score_boxes import STATS, generated, official, put, scored

pytestmark = pytest.mark.official


def guessed(truths, seed):
    """Predictions of a middling detector: most boxes moved a little, some of another category, some invented."""
    r = random.Random(seed)
    categories = [category["id"] for category in truths["categories"]]
    for truth in truths["annotations"]:
        for _ in range(r.choice([0, 1, 1, 2])):
            box = [max(0.0, v + r.uniform(-0.1, 0.1) * max(truth["bbox"][2:])) for v in truth["bbox"]]
            category = truth["category_id"] if r.random() < 0.9 else r.choice(categories)
            score = r.choice([1.0, 0.5, round(r.random(), 3)])
            yield {"image_id": truth["image_id"], "category_id": category, "bbox": box, "score": score}


def real_sets():
    root = os.environ.get("VLMR1_REAL")
    if root is None:
        pytest.skip("VLMR1_REAL names no folder of real annotations")
    paths = sorted(Path(root).rglob("instances*.json"))
    assert paths, f"{root}: no instances*.json below it"
    return [json.loads(path.read_text()) for path in paths]


def test_coco_equals_pycocotools_on_real_annotations(tmp_path):
    for truths in real_sets():
        for seed in (1, 2):
            boxes = list(guessed(truths, seed))
            result = scored(tmp_path, "coco", truths, boxes)
            assert [result[name] for name in STATS] == pytest.approx(official(truths, boxes).tolist(), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_lvis_equals_its_own_code(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(np, "float", float, raising=False)  # a name that its code uses and NumPy has dropped
    lvis = pytest.importorskip("lvis")
    truths, boxes = generated(seed, crowd=0)
    r = random.Random(seed)
    for category in truths["categories"]:
        category["frequency"] = "rcf"[category["id"] % 3]
    for image in truths["images"]:
        there = {one["category_id"] for one in truths["annotations"] if one["image_id"] == image["id"]}
        image["neg_category_ids"] = [c for c in range(4) if c not in there and r.random() < 0.5]
        image["not_exhaustive_category_ids"] = [c for c in there if r.random() < 0.3]
    truths["annotations"] = [{k: v for k, v in one.items() if k != "iscrowd"} for one in truths["annotations"]]
    for one in truths["annotations"]:
        one["segmentation"] = [[0, 0, 1, 0, 1, 1]]
    result = scored(tmp_path, "lvis", truths, boxes)
    known = lvis.LVIS(str(put(tmp_path / "true.json", truths)))
    run = lvis.LVISEval(known, lvis.LVISResults(known, json.loads(json.dumps(boxes))), "bbox")
    run.run()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
    assert [result[name] for name in names] == pytest.approx([run.results[name] for name in names], abs=1e-9)
