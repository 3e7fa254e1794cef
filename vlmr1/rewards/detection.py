"""Rewards that compare boxes: one box by its IoU, several by average precision or by matching.

Boxes and truths are in the frame of the stored picture. Left out on purpose: scores, which language models do not give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmr1.answers import Answer, Found
from vlmr1.boxes import Box, iou
from vlmr1.rewards import Reward
from vlmr1.rewards.precision import average_precision, ious

POSITION, COMPLETENESS = 0.7, 0.3  # weights of weighted_sum; a weight of 0 on the labels is left out
MATCH_IOU = 0.5
NOWHERE: Box = (-1.0, -1.0, -1.0, -1.0)  # a box without area, which overlaps none


def iou_reward(said: Answer, truth: Box | None) -> Reward:
    """IoU of the first answered box with the true one, in [0, 1]; 0 where no box can be read.

    Where nothing is to be found (truth None), 1 for the answer `None`. The continuous IoU: a one-pixel overlap is worth
    what it is. Formula: |A ∩ B| / |A ∪ B|, the accuracy reward of VLM-R1 (arXiv 2504.07615, eq. 5).
    """
    if said.text is not None and said.none:
        return Reward(float(truth is None), True, f"says there is none, {'rightly' if truth is None else 'wrongly'}")
    if said.box is None:
        return Reward(0.0, False, "; ".join(said.problems) or "no box in the answer")
    if truth is None:
        return Reward(0.0, True, "a box where there is no target")
    value = iou(said.box, truth)
    return Reward(value, True, f"IoU {value:.3f}")


def detection_reward(name: str, said: Answer, truth: Sequence[Found]) -> Reward:
    """One of `DETECTION` by name, in [0, 1]. `truth` holds every true box with its label; empty where there is none.

    - `od_ap`, `map`: COCO's AP@[.50:.95] of the picture; `od_ap50`: AP at 0.50. A label that the truth does not hold
      counts as one more label with AP 0. `map` and `odLength` also read an answer that stands in no answer block.
    - `odLength`: AP@[.50:.95] · min(1, true boxes / boxes said), s_ovd of VLM-R1 (arXiv 2504.07615, eq. 7, 8).
    - `weighted_sum`: 0.7 · (summed IoU of matched boxes with the right label / true boxes) + 0.3 · (1 − (share of true
      boxes missed + share of boxes said that match none) / 2), matched one to one, the highest IoU ≥ 0.5 first.
    - `…_lenient`: with labels that the truth does not hold overlooked, as the original does; for comparison only.

    Where there is nothing to find, 1 for `None` or an empty list and 0 for anything else.
    """
    kind = name.removesuffix("_lenient")
    if said.text is None and kind in ("od_ap", "od_ap50"):
        return Reward(0.0, False, "; ".join(said.problems))
    if said.none or not truth:
        right = said.none and not truth
        why = "says there is none" if said.none else "there is nothing to find"
        parsed = said.none or bool(said.found)
        return Reward(float(right), parsed, f"{why}, {'rightly' if right else 'wrongly'}")
    if not said.found:
        return Reward(0.0, False, "; ".join(said.problems) or "no box in the answer")
    if kind == "weighted_sum":
        return _weighted_sum(said, truth)
    value = average_precision(_in_order(said), truth, charge_unknown=kind == name, only_half=kind == "od_ap50")
    reason = f"AP {value:.3f}"
    if kind == "odLength":
        share = min(1.0, len(truth) / said.count)
        value, reason = value * share, f"{reason} x {share:.3f} for {said.count} boxes where there are {len(truth)}"
    return Reward(value, True, reason)


DETECTION = ("odLength", "od_ap", "od_ap50", "map", "weighted_sum")
LENIENT = ("odLength_lenient", "od_ap_lenient", "od_ap50_lenient", "map_lenient")


def _in_order(said: Answer) -> list[Found]:
    """The boxes as they were said, those that are none in their places, nowhere: each is a false alarm."""
    boxes = list(said.found)
    for place, one in reversed(said.refused):
        boxes.insert(place, Found(NOWHERE, one.label))
    return boxes


def match(said: Sequence[Found], truth: Sequence[Found]) -> list[tuple[int, int, float]]:
    """(place of the box said, place of the true box, IoU), one to one, the highest IoU first, none below 0.5.

    Labels play no part. Of equal overlaps the box said earlier, then the true box listed earlier, comes first.
    """
    if not said or not truth:
        return []
    overlaps = ious(np.array([one.box for one in said]), np.array([one.box for one in truth]))
    pairs = np.argwhere(overlaps >= MATCH_IOU)
    values = overlaps[pairs[:, 0], pairs[:, 1]]
    order = np.argsort(-values, kind="stable")
    pairs, values = pairs[order], values[order]
    found: list[tuple[int, int, float]] = []
    while len(pairs):
        (d, g), value = pairs[0].tolist(), float(values[0])
        found.append((d, g, value))
        free = (pairs[:, 0] != d) & (pairs[:, 1] != g)
        pairs, values = pairs[free], values[free]
    return found


def _weighted_sum(said: Answer, truth: Sequence[Found]) -> Reward:
    """See `detection_reward`. Labels are compared in lower case, as the original does here."""
    pairs = match(said.found, truth)
    right = [value for d, g, value in pairs if said.found[d].label.lower() == truth[g].label.lower()]
    missed, alarms = 1 - len(pairs) / len(truth), 1 - len(pairs) / said.count
    position, completeness = sum(right) / len(truth), 1 - (missed + alarms) / 2
    value = min(1.0, POSITION * position + COMPLETENESS * completeness)
    return Reward(value, True, f"position {position:.3f}, completeness {completeness:.3f}")
