"""How much a figure over pictures would change with other pictures: a bootstrap that draws whole pictures.

Boxes of one picture are no independent trials, so pictures are drawn, with all that stands on them. The draws come from
a fixed seed and depend on the number of pictures alone: two models on the same pictures meet the same draws, which is
what makes a comparison of them paired.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vlmr1.evaluation.annotations import Id
from vlmr1.evaluation.average_precision import Matched

DRAWS = 200
AFFORDABLE = 200_000  # predictions; above it no interval is made, and the result says so


def draw_weights(images: int, seed: int = 0) -> NDArray[np.float64]:
    """(DRAWS, images) how often each picture is drawn."""
    rng = np.random.default_rng([seed, images])
    return rng.multinomial(images, np.full(images, 1 / images), size=DRAWS).astype(np.float64)


def drawn_precisions(matched: Mapping[Id, Matched], images: int, seed: int = 0) -> dict[Id, NDArray[np.float64]]:
    """(DRAWS,) AP@[.50:.95] of each category that has something to be found; nan where a draw has nothing.

    A picture drawn twice counts its boxes twice.
    """
    weights = draw_weights(images, seed)
    return {id_: _drawn(one, weights) for id_, one in matched.items() if one.positives}


def _drawn(matched: Matched, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    places, counts = matched.wanted
    wanted = weights[:, places] @ counts.astype(np.float64)  # (DRAWS,)
    of_boxes = weights[:, matched.images]  # (DRAWS, n)
    total = np.zeros(len(weights))
    for hit, alarm in zip(matched.hits, matched.alarms, strict=True):
        if hit.any():
            counted = hit | alarm
            weight, good = of_boxes[:, counted], hit[counted]
            hits = np.cumsum(weight * good, axis=1)
            precision = hits / np.maximum(np.cumsum(weight, axis=1), 1e-9)
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1][:, good]
            share = hits[:, good] / np.maximum(wanted, 1)[:, None]
            reached = np.where(share > 0, np.floor(share * 100 + 1e-9) + 1, 0)  # of the 101 recalls
            total += (np.diff(reached, axis=1, prepend=0) * precision).sum(axis=1) / 101
    return np.where(wanted > 0, total / len(matched.hits), np.nan)


def drawn_mean(of_categories: Mapping[Id, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(DRAWS,) the mean over the categories that a draw has something of."""
    stacked = np.array(list(of_categories.values()))  # (K, DRAWS)
    there = ~np.isnan(stacked)
    return np.where(there, stacked, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def centred(draws: NDArray[np.float64], figure: float) -> NDArray[np.float64]:
    """The draws moved so that their mean is the figure itself.

    AP over drawn pictures is too high on average: a picture drawn twice is as easy the second time, and a category
    that is seldom found is left out of the mean where its pictures are. Their spread is what is wanted.
    """
    return draws + (figure - draws.mean())


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %, within [0, 1]."""
    low, high = np.clip(np.quantile(draws, [0.025, 0.975]), 0, 1)
    return float(low), float(high)
