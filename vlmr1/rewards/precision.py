"""Average precision of one picture's answer, to the digit of pycocotools, without building its objects.

A vision-language model gives no scores, so every box has score 1 and boxes count in the order in which they were said.
Left out on purpose: crowds, areas and data sets of many pictures, which are evaluation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vlmr1.answers import Found

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # IoU a match needs; the i-th counts from it on, less rounding
MOST = 100  # boxes of a label that count, the first ones: COCO's maxDets
_FLOORS = [float(t) for t in np.minimum(THRESHOLDS, 1 - 1e-10)]
_RECALLS = np.linspace(0.0, 1.0, 101)


def ious(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of every box of `a` (m, 4) with every box of `b` (n, 4): (m, n). Boxes are (x0, y0, x1, y1), not empty.

    In the arithmetic of pycocotools, which holds a box as corner and sides, so that equal is equal to the last bit.
    Where an area is beyond all measure the IoU is 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sides_a, sides_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
        low = np.maximum(a[:, None, :2], b[None, :, :2])
        high = np.minimum((a[:, :2] + sides_a)[:, None], (b[:, :2] + sides_b)[None])
        sides = np.maximum(high - low, 0.0)
        inside = sides[..., 0] * sides[..., 1]
        union = (sides_a[:, 0] * sides_a[:, 1])[:, None] + (sides_b[:, 0] * sides_b[:, 1])[None] - inside
        found = inside / union
    return np.where(np.isfinite(union), found, 0.0)


def average_precision(
    said: Sequence[Found], truth: Sequence[Found], charge_unknown: bool, only_half: bool = False
) -> float:
    """COCO's 101-point average precision, in [0, 1]: the mean over labels and the IoU thresholds 0.50, 0.55, … 0.95.

    Labels must be equal to the letter. With `charge_unknown` each label said that the truth does not hold takes part in
    the mean with 0, as it would had the picture been asked for it; without, such boxes are overlooked, which is what
    COCO's own evaluation does with them. `only_half` takes the threshold 0.50 alone.
    Formula: COCO's evaluation (bbox, all areas, maxDets 100) of one picture. `truth` must not be empty.
    """
    wanted: dict[str, list[int]] = {}
    for i, one in enumerate(truth):
        wanted.setdefault(one.label, []).append(i)
    given: dict[str, list[int]] = {}
    unknown = set()
    for i, one in enumerate(said):
        if one.label not in wanted:
            unknown.add(one.label)
        else:
            mine = given.setdefault(one.label, [])
            if len(mine) < MOST:
                mine.append(i)
    if not given:
        return 0.0
    floors = _FLOORS[:1] if only_half else _FLOORS
    count = [i for indices in given.values() for i in indices]
    overlaps = ious(np.array([said[i].box for i in count]), np.array([one.box for one in truth]))
    rows = overlaps.tolist()
    near: dict[int, list[int]] = {}  # of a box said, the true boxes it may match at all
    for d, g in np.argwhere(overlaps >= floors[0]).tolist():
        near.setdefault(d, []).append(g)
    total, start = 0.0, 0
    for label, indices in given.items():
        pairs = [
            (order, [(rows[start + order][g], g) for g in near[start + order] if truth[g].label == label])
            for order in range(len(indices))
            if start + order in near
        ]
        start += len(indices)
        known: dict[tuple[int, ...], float] = {}  # thresholds mostly agree on what matches
        for floor in floors:
            hits = _matches(pairs, floor)
            if hits not in known:
                known[hits] = _area(hits, len(wanted[label]))
            total += known[hits]
    return min(1.0, total / len(floors) / (len(wanted) + (len(unknown) if charge_unknown else 0)))


def _matches(pairs: list[tuple[int, list[tuple[float, int]]]], floor: float) -> tuple[int, ...]:
    """The places, in the order said, of boxes that take a true box of their own: each the best still free, of equals
    the later one."""
    taken: set[int] = set()
    hits = []
    for order, candidates in pairs:
        best, chosen = floor, -1
        for overlap, g in candidates:
            if overlap >= best and g not in taken:
                best, chosen = overlap, g
        if chosen >= 0:
            taken.add(chosen)
            hits.append(order)
    return tuple(hits)


def _area(hits: tuple[int, ...], wanted: int) -> float:
    """COCO's average precision from the places of the hits: precision, made monotone, at 101 recalls."""
    shares, area, precision = _recalls(wanted), 0.0, 0.0
    for i in range(len(hits) - 1, -1, -1):
        precision = max(precision, (i + 1) / (hits[i] + 1))
        area += shares[i] * precision
    return area / len(_RECALLS)


@lru_cache(maxsize=1024)
def _recalls(wanted: int) -> tuple[int, ...]:
    """How many of the 101 recalls the i-th hit is the first to reach, with `wanted` true boxes."""
    reached = np.searchsorted(_RECALLS, np.arange(wanted + 1) / wanted, side="right")
    reached[0] = 0
    return tuple(np.diff(reached).tolist())
