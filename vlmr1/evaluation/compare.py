"""Two models on the same items: is the difference of their main figures more than noise?

Proportions by McNemar's exact test on the items on which just one of the two is right; means by a paired bootstrap over
items; figures such as AP, which are no mean over items, by the same draws of pictures for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmr1.evaluation.intervals import RESAMPLES, disagreements, mcnemar, paired_difference

LEVEL = 0.05


@dataclass(frozen=True)
class Result:
    """What a scorer found: the figures by name, and what the main one consists of, for comparisons."""

    figures: dict[str, Any]
    main: str  # the name of the main figure
    items: NDArray[np.float64] | None = None  # of a mean: one value an item; of a proportion 0 or 1
    draws: NDArray[np.float64] | None = None  # of any other figure: its value over drawn pictures

    @property
    def value(self) -> float:
        """The main figure."""
        return float(self.figures[self.main])


def compare(ours: Result, theirs: Result) -> dict[str, Any]:
    """The difference of the main figures, its 95 % interval, and whether it is noise, in numbers and in a sentence."""
    difference = ours.value - theirs.value
    found: dict[str, Any] = {"figure": ours.main, "ours": ours.value, "theirs": theirs.value, "difference": difference}
    if ours.items is not None and theirs.items is not None:
        _, low, high = paired_difference(ours.items, theirs.items)  # type: ignore[arg-type]
        found |= {"n": len(ours.items), "difference_low": low, "difference_high": high}
        if {*np.unique(ours.items), *np.unique(theirs.items)} <= {0.0, 1.0}:
            only_ours, only_theirs = disagreements(ours.items.tolist(), theirs.items.tolist())
            p = mcnemar(only_ours, only_theirs)
            found |= {"test": "McNemar, exact", "only_ours": only_ours, "only_theirs": only_theirs, "p": p}
            return found | _said(difference, p >= LEVEL, f"p = {p:.3g}")
        found["test"] = "paired bootstrap over items"
    elif ours.draws is not None and theirs.draws is not None:
        low, high = (float(v) for v in np.quantile(ours.draws - theirs.draws, [0.025, 0.975]))
        found |= {"test": "paired bootstrap over pictures", "difference_low": low, "difference_high": high}
    else:
        why = "too many boxes to draw pictures again and again"
        return found | {"test": None, "noise": None, "says": f"a difference of {difference:+.4f}, untested: {why}"}
    return found | _said(difference, low <= 0 <= high, f"95 % interval [{low:+.4f}, {high:+.4f}]")


def _said(difference: float, noise: bool, why: str) -> dict[str, Any]:
    verdict = "may well be noise" if noise else "is more than noise"
    return {"noise": noise, "says": f"a difference of {difference:+.4f} {verdict} ({why})"}


def draws_of(result: Result, seed: int) -> NDArray[np.float64]:
    """A mean over items, as it is over drawn items. The same seed draws the same of as many items."""
    assert result.items is not None
    n = len(result.items)
    picks = np.random.default_rng([seed, n]).integers(0, n, (RESAMPLES, n))
    return np.asarray(result.items[picks].mean(axis=1))


def joined(parts: Sequence[Result]) -> NDArray[np.float64] | None:
    """The mean of several sets' figures over their draws, each set drawn by itself; None where one has none."""
    draws = [part.draws for part in parts]
    return None if any(one is None for one in draws) else np.mean(np.array(draws), axis=0)
