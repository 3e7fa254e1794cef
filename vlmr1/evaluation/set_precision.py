"""COCO's average precision over all pictures of a source, by pycocotools, from boxes that were said without scores.

Every box has score 1 and counts in the order in which it was said. A category is a name that stands in some truth of
the source; boxes of other names are overlooked, as COCO's evaluation does. AP hardly charges boxes too many; precision
and recall do. Left out on purpose: crowds, sizes, and the benchmarks' own rules.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from vlmr1.answers import Found
from vlmr1.rewards.detection import match


def set_precision(said: Sequence[Sequence[Found]], truths: Sequence[Sequence[Found]]) -> dict[str, float]:
    """AP@[.50:.95], AP50 and AP75 of the answers to pictures with these truths; nothing where no truth has a box."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = sorted({one.label for truth in truths for one in truth if one.label is not None})
    if not names:
        return {}
    numbers = {name: i for i, name in enumerate(names, start=1)}
    annotations = _annotations(truths, numbers)
    found = [one | {"score": 1.0} for one in _annotations(said, numbers)]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells the time each step takes
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "categories": [{"id": i, "name": name} for name, i in numbers.items()],
            "annotations": annotations,
        }
        truth.createIndex()
        if not found:
            return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(("AP", "AP50", "AP75"), map(float, run.stats[:3]), strict=True))


def box_counts(said: Sequence[Sequence[Found]], truths: Sequence[Sequence[Found]]) -> dict[str, float]:
    """Boxes said and true a picture, and precision and recall of all boxes said.

    A box is right that has a true one of its name for itself, at an IoU of at least 0.5; best pairs are made first.
    Precision is 0 where no box was said, recall where none is true.
    """
    right = sum(map(_pairs, said, truths))
    given, wanted = sum(map(len, said)), sum(map(len, truths))
    return {
        "boxes": given / len(truths),
        "true_boxes": wanted / len(truths),
        "precision": right / given if given else 0.0,
        "recall": right / wanted if wanted else 0.0,
    }


def _pairs(said: Sequence[Found], truth: Sequence[Found]) -> int:
    """How many boxes of one picture find a true one of their name."""
    names = {one.label for one in truth}
    return sum(len(match([s for s in said if s.label == n], [t for t in truth if t.label == n])) for n in names)


def _annotations(pictures: Sequence[Sequence[Found]], numbers: dict[str, int]) -> list[dict[str, Any]]:
    """Boxes of known names as COCO's annotations. Ids start at 1: pycocotools takes 0 for no match."""
    rows: list[dict[str, Any]] = []
    for picture, boxes in enumerate(pictures):
        for (x0, y0, x1, y1), label in boxes:
            if label in numbers:
                row = {"id": len(rows) + 1, "image_id": picture, "category_id": numbers[label], "iscrowd": 0}
                rows.append(row | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
    return rows
