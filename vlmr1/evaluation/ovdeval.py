"""OVDEval: COCO's AP before and after a suppression that knows the truth (NMS-AP), and the mean over its five aspects.

NMS-AP's rule (Yao et al., AAAI 2024): on each picture, for each true box whatever its label, of all predictions
whatever theirs with IoU > 0.5 the best scored stays and the others go, unless another true box keeps them; what
overlaps no true box stays. Then COCO's AP.
Ties: of equal best scores the box listed last stays. Where all scores are equal, which boxes without scores always are,
the official code does the same; where only some are, its choice hangs on numpy's unstable sort and the processor, and
ours is the last. So the same boxes listed the other way round can score otherwise; `order_sensitivity` says how far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlmr1.evaluation.annotations import Id, Truth, Truths, Xywh
from vlmr1.evaluation.average_precision import Matched, match_set, mean, precisions
from vlmr1.evaluation.coco import ap_draws, average, bounds, counts
from vlmr1.evaluation.compare import Result, joined
from vlmr1.evaluation.predictions import Detection, by_pair

OVERLAP = 0.5  # strictly above
ASPECTS = {  # the published overall score is the mean of these five
    "object": ("celebrity", "logo", "landmark"),
    "attribute": ("color", "material"),
    "position": ("position",),
    "relationship": ("relationship",),
    "negation": ("negation",),
}
FILES = tuple(name for names in ASPECTS.values() for name in names)


def ovdeval(truths: Truths, detections: Sequence[Detection], seed: int = 0) -> Result:
    """One of the files. `ap` and `nms_ap` are as the official code has them, the id 0 of its annotations included;
    `…_id_0_mended` count a box that finds the annotation with id 0."""
    kept = suppressed(truths, detections)
    before, after = match_set(truths, by_pair(detections)), match_set(truths, by_pair(kept))
    figures: dict[str, Any] = counts(truths, detections) | {"ap": average(before)["AP"], "nms_ap": average(after)["AP"]}
    figures |= {"n_before": len(detections), "n_after": len(kept)}
    draws = ap_draws(after, truths, kept, seed)
    figures |= bounds("ap", ap_draws(before, truths, detections, seed)) | bounds("nms_ap", draws)
    if truths.starts_at_0:
        for name, boxes in (("ap", detections), ("nms_ap", kept)):
            mended = match_set(truths, by_pair(boxes), zero_is_a_match=True)
            figures[f"{name}_id_0_mended"] = average(mended)["AP"]
    turned = {"ap": _ap(truths, detections[::-1]), "nms_ap": _ap(truths, suppressed(truths, detections[::-1]))}
    figures["order_sensitivity"] = {f"{name}_reversed": value for name, value in turned.items()} | {
        f"{name}_difference": value - figures[name] for name, value in turned.items()
    }
    figures["per_category"] = _per_category(truths, before, after)
    return Result(figures, "nms_ap", draws=draws)


def suppressed(truths: Truths, detections: Sequence[Detection]) -> list[Detection]:
    """The detections that stay, in their order."""
    true: dict[Id, list[Truth]] = {}
    for (image, _), some in truths.boxes.items():
        true.setdefault(image, []).extend(some)
    places: dict[Id, list[int]] = {}
    for place, one in enumerate(detections):
        places.setdefault(one.image, []).append(place)
    kept: set[int] = set()
    gone: set[int] = set()
    for image, own in places.items():
        boxes = np.array([detections[place].box for place in own])
        scores = np.array([detections[place].score for place in own])
        for truth in true.get(image, ()):
            near = np.flatnonzero(_ious(truth.box, boxes) > OVERLAP)
            if near.size:
                best = near[np.argsort(scores[near], kind="stable")[-1]]
                kept.add(own[best])
                gone.update(own[i] for i in near if i != best)
    return [one for place, one in enumerate(detections) if place in kept or place not in gone]


def _ious(true: Xywh, boxes: np.ndarray) -> np.ndarray:
    """(n,) continuous IoU of a true box with (n, 4) boxes, all x, y, width, height."""
    low = np.maximum(boxes[:, :2], true[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], np.add(true[:2], true[2:]))
    shared = np.prod(np.maximum(0.0, high - low), axis=1)
    union = true[2] * true[3] + boxes[:, 2] * boxes[:, 3] - shared
    return np.divide(shared, union, out=np.zeros(len(boxes)), where=union != 0)


def _ap(truths: Truths, detections: Sequence[Detection]) -> float:
    return average(match_set(truths, by_pair(detections)))["AP"]


def _per_category(truths: Truths, before: Mapping[Id, Matched], after: Mapping[Id, Matched]) -> dict[str, Any]:
    return {
        str(truths.names[id_]): {
            "ap": float(precisions(one).mean()),
            "nms_ap": float(precisions(after[id_]).mean()),
            "boxes": one.positives,
        }
        for id_, one in before.items()
        if one.positives
    }


def ovdeval_overall(parts: Mapping[str, Result]) -> Result:
    """The mean of the five aspects, each the mean of its files, from the results of the eight `FILES`."""
    figures: dict[str, Any] = {}
    for name in ("ap", "nms_ap"):
        aspects = {aspect: mean(parts[file].figures[name] for file in files) for aspect, files in ASPECTS.items()}
        figures |= {f"overall_{name}": mean(aspects.values()), f"aspects_{name}": aspects}
    drawn = [joined([parts[file] for file in files]) for files in ASPECTS.values()]
    draws = None if any(one is None for one in drawn) else np.mean(np.array(drawn), axis=0)
    figures |= bounds("overall_nms_ap", draws)
    figures |= {key: sum(part.figures[key] for part in parts.values()) for key in ("n", "boxes", "missing")}
    figures["parts"] = {name: parts[name].figures for name in FILES}
    return Result(figures, "overall_nms_ap", draws=draws)
