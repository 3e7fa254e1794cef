"""COCO's detection figures, and greedy precision and recall beside them; COCO-filtered, the same on fewer pairs.

AP and AR are COCOeval's (`vlmr1.evaluation.average_precision`): bbox, 100 boxes a picture and category, all areas and
three ranges; -1 where there is nothing of that size. Of detectors without scores, whose boxes all say 1, AP depends on
the order in which the file lists them; `order_sensitivity` says by how much.
`greedy_precision` and `greedy_recall` are not defined where they were published. Here: within a category of a picture
boxes are matched one to one, the highest IoU first, from 0.5 on; matches over the whole set, divided by all predictions
and by all true boxes. Crowd regions take no part as truths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmr1.answers import Found
from vlmr1.boxes import from_xywh
from vlmr1.evaluation.annotations import Id, Truths
from vlmr1.evaluation.average_precision import MOST, Matched, match_set, mean, precisions, recalls
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.intervals import wilson
from vlmr1.evaluation.predictions import By, Detection, by_pair
from vlmr1.evaluation.resampling import AFFORDABLE, centred, draw_weights, drawn_mean, drawn_precisions, interval
from vlmr1.rewards.detection import match

FILTERED_MOST = 10  # boxes of a category on a picture that COCO-filtered keeps


def coco(truths: Truths, detections: Sequence[Detection]) -> Result:
    """All figures of a set. An annotation with id 0 counts as in COCOeval; `AP_id_0_mended` has it right."""
    given = by_pair(detections)
    matched = match_set(truths, given)
    figures: dict[str, Any] = counts(truths, detections) | average(matched)
    for area in ("small", "medium", "large"):
        of_size = _wanted(match_set(truths, given, area))
        figures[f"AP_{area}"] = mean(precisions(one).mean() for one in of_size.values())
        figures[f"AR_{area}"] = mean(recalls(one, MOST).mean() for one in of_size.values())
    for most in (1, 10, MOST):
        figures[f"AR_{most}"] = mean(recalls(one, most).mean() for one in _wanted(matched).values())
    if truths.starts_at_0:
        figures["AP_id_0_mended"] = average(match_set(truths, given, zero_is_a_match=True))["AP"]
    turned = average(match_set(truths, by_pair(detections[::-1])))["AP"]
    figures["order_sensitivity"] = {"AP_reversed": turned, "difference": turned - figures["AP"]}
    draws = ap_draws(matched, truths, detections)
    figures |= bounds("AP", draws) | greedy(truths, given)
    figures["per_category"] = {
        str(truths.names[id_]): {"AP": float(precisions(one).mean()), "boxes": one.positives}
        for id_, one in _wanted(matched).items()
    }
    return Result(figures, "AP", draws=draws)


def coco_filtered(truths: Truths, detections: Sequence[Detection]) -> Result:
    """COCO on the pairs of a picture and a category with at most 10 annotations there, crowd regions counted.

    A pair that is dropped is dropped whole: a prediction there is neither right nor wrong. What AP is when only the
    truths are dropped and such predictions count as false, `AP_dropped_pairs_charged` says.
    """
    boxes = {pair: true for pair, true in truths.boxes.items() if len(true) <= FILTERED_MOST}
    dropped = truths.boxes.keys() - boxes.keys()
    kept = replace(truths, boxes=boxes)
    result = coco(kept, [one for one in detections if (one.image, one.category) not in dropped])
    charged = average(match_set(kept, by_pair(detections)))["AP"]
    pairs = {"pairs": len(boxes), "pairs_dropped": len(dropped), "AP_dropped_pairs_charged": charged}
    return replace(result, figures=result.figures | pairs)


def counts(truths: Truths, detections: Sequence[Detection]) -> dict[str, int]:
    """What the figures are of. A picture without any prediction is `missing`: the form cannot say "nothing there"."""
    return {
        "n": len(truths.images),
        "boxes": sum(not truth.crowd for true in truths.boxes.values() for truth in true),
        "predicted_boxes": len(detections),
        "missing": len(set(truths.images) - {one.image for one in detections}),
    }


def average(matched: Mapping[Id, Matched]) -> dict[str, float]:
    """AP, AP50 and AP75: means over the categories that have something to be found."""
    each = [precisions(one) for one in _wanted(matched).values()]
    return {
        "AP": mean(one.mean() for one in each),
        "AP50": mean(one[0] for one in each),
        "AP75": mean(one[5] for one in each),
    }


def ap_draws(
    matched: Mapping[Id, Matched], truths: Truths, detections: Sequence[Detection], seed: int = 0
) -> NDArray[np.float64] | None:
    """AP over drawn pictures; None where that would take too long or there is nothing to draw."""
    if len(detections) > AFFORDABLE or not _wanted(matched):
        return None
    return centred(drawn_mean(drawn_precisions(matched, len(truths.images), seed)), average(matched)["AP"])


def bounds(name: str, draws: NDArray[np.float64] | None) -> dict[str, float | None]:
    """The interval's keys beside a figure; null where none was made."""
    low, high = (None, None) if draws is None else interval(draws)
    return {f"{name}_low": low, f"{name}_high": high}


def greedy(truths: Truths, given: Mapping[By, Sequence[Detection]]) -> dict[str, float | None]:
    """Greedy precision and recall with their intervals over drawn pictures; 0 where there is nothing to divide by."""
    place = {id_: number for number, id_ in enumerate(truths.images)}
    table = np.zeros((3, len(truths.images)))  # matches, predictions, true boxes of each picture
    for pair in dict.fromkeys([*truths.boxes, *given]):
        true = [Found(from_xywh(list(t.box)), "") for t in truths.boxes.get(pair, ()) if not t.crowd]
        said = [Found(from_xywh(list(one.box)), "") for one in given.get(pair, ())]
        table[:, place[pair[0]]] += len(match(said, true)), len(said), len(true)
    drawn = table @ draw_weights(len(truths.images)).T  # (3, DRAWS)
    found: dict[str, float | None] = {}
    for name, row in (("greedy_precision", 1), ("greedy_recall", 2)):
        found[name] = float(table[0].sum() / max(1.0, table[row].sum()))
        found |= bounds(name, drawn[0] / np.maximum(drawn[row], 1))
        pictures = int((table[row] > 0).sum())
        if pictures and found[name] in (0.0, 1.0):  # on every picture alike, of which a bootstrap would be certain
            low, high = wilson(int(found[name] == 1.0) * pictures, pictures)
            found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def _wanted(matched: Mapping[Id, Matched]) -> dict[Id, Matched]:
    return {id_: one for id_, one in matched.items() if one.positives}
