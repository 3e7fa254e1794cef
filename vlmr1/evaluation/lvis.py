"""LVIS: average precision where each picture was searched for a few of 1,203 categories only (Gupta et al., 2019).

A prediction counts where its category has a true box on the picture or is among `neg_category_ids`; elsewhere nobody
knows. Where a category is in `not_exhaustive_category_ids`, a prediction that finds no true box is ignored. Of a
picture the 300 best scored predictions are taken, over all categories together. There are no crowds, and boxes without
area, true or predicted, take no part. APr, APc and APf are over the categories marked rare, common and frequent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vlmr1.evaluation.annotations import Id, Truths
from vlmr1.evaluation.average_precision import Matched, match_set, mean, precisions, recalls
from vlmr1.evaluation.coco import average, bounds, counts
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.predictions import By, Detection, by_pair
from vlmr1.evaluation.resampling import AFFORDABLE, centred, drawn_mean, drawn_precisions
from vlmr1.sources.reading import At, shown, take_ids

MOST = 300  # predictions of a picture
GROUPS = {"r": "APr", "c": "APc", "f": "APf"}


def lvis(truths: Truths, detections: Sequence[Detection]) -> Result:
    """All figures; `truths` as `read_truths(…, lvis=True)` gives them. Raises ValueError naming image or category."""
    if not any("neg_category_ids" in item for item in truths.items.values()):
        raise ValueError(f"{truths.path}: no image has neg_category_ids, so it looks like COCO; score it as coco")
    groups = _groups(truths)
    boxes = {pair: [truth for truth in true if truth.area > 0] for pair, true in truths.boxes.items()}
    truths = replace(truths, boxes={pair: true for pair, true in boxes.items() if true})
    searched, partial = _searched(truths)
    counted = [
        one for one in best(detections, MOST) if (one.image, one.category) in searched and one.box[2] * one.box[3] > 0
    ]
    given = by_pair(counted)
    by_area = {
        area: _wanted(match_set(truths, given, area, most=MOST, partial=partial))
        for area in ("all", "small", "medium", "large")
    }
    matched = by_area["all"]
    figures: dict[str, Any] = counts(truths, detections) | {"predicted_boxes_counted": len(counted)} | average(matched)
    for area, short in (("small", "APs"), ("medium", "APm"), ("large", "APl")):
        figures[short] = mean(precisions(one).mean() for one in by_area[area].values())
    each = {id_: float(precisions(one).mean()) for id_, one in matched.items()}
    draws = None
    drawn = drawn_precisions(matched, len(truths.images)) if matched and len(counted) <= AFFORDABLE else None
    if drawn is not None:
        draws = centred(drawn_mean(drawn), figures["AP"])
    figures |= bounds("AP", draws)
    for frequency, name in GROUPS.items():
        mine = [id_ for id_ in each if groups[id_] == frequency]
        figures[name] = mean(each[id_] for id_ in mine)
        some = None
        if drawn is not None and mine:
            some = centred(drawn_mean({id_: drawn[id_] for id_ in mine}), figures[name])
        figures |= bounds(name, some) | {f"{name}_categories": len(mine)}
    figures[f"AR_{MOST}"] = mean(recalls(one, MOST).mean() for one in matched.values())
    figures["per_category"] = {
        str(truths.names[id_]): {"AP": value, "boxes": matched[id_].positives} for id_, value in each.items()
    }
    return Result(figures, "AP", draws=draws)


def best(detections: Sequence[Detection], most: int) -> list[Detection]:
    """So many detections of each picture, those of the best scores; of equal scores those listed first."""
    of_image: dict[Id, list[Detection]] = {}
    for one in detections:
        of_image.setdefault(one.image, []).append(one)
    return [
        one
        for own in of_image.values()
        for one in (own if len(own) <= most else sorted(own, key=lambda one: one.score, reverse=True)[:most])
    ]


def _searched(truths: Truths) -> tuple[set[By], set[By]]:
    """Pairs of which is known whether the category is there, and those of them with perhaps more than is marked."""
    searched, partial = set(truths.boxes), set()
    for number, (id_, item) in enumerate(truths.items.items()):
        with At(truths.path, "image", number):
            searched |= {(id_, category) for category in take_ids(item, "neg_category_ids")}
            partial |= {(id_, category) for category in take_ids(item, "not_exhaustive_category_ids")}
    return searched, partial


def _groups(truths: Truths) -> dict[Id, str]:
    """r, c or f of each category."""
    found = {}
    for number, (id_, item) in enumerate(truths.categories.items()):
        with At(truths.path, "category", number):
            frequency = item.get("frequency")
            if frequency not in GROUPS:
                raise ValueError(f"frequency is {shown(frequency)} where r, c or f is needed")
            found[id_] = str(frequency)
    return found


def _wanted(matched: dict[Id, Matched]) -> dict[Id, Matched]:
    return {id_: one for id_, one in matched.items() if one.positives}
