"""95 % intervals. Pure functions; resampling draws from a fixed seed, so the same answers give the same figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054  # standard normal quantile at 97.5 %
RESAMPLES = 2000


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion, within [0, 1]. Raises ValueError for n = 0."""
    if n == 0:
        raise ValueError("an interval needs at least one item")
    share, z2 = hits / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if hits == 0 else low, 1.0 if hits == n else high)


def bootstrap_mean(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean."""
    data = np.asarray(values, dtype=np.float64)  # (n,)
    picks = np.random.default_rng(0).integers(0, len(data), (RESAMPLES, len(data)))
    low, high = np.quantile(data[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_share(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The interval of a proportion whose items come in groups, of which `values` are the shares that are right.

    The bootstrap's over groups; Wilson's over groups where each is all right or all wrong. For those the two agree, but
    that a bootstrap of groups which are all alike would claim to be certain.
    """
    data = np.asarray(values, dtype=np.float64)  # (groups,)
    if set(np.unique(data)) <= {0.0, 1.0}:
        return wilson(int(data.sum()), len(data))
    return bootstrap_mean(data)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean of ours - theirs on the same items, with its percentile bootstrap interval."""
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return (float(differences.mean()), *bootstrap_mean(differences))


def disagreements(ours: Sequence[float], theirs: Sequence[float]) -> tuple[int, int]:
    """How many of the same items one model alone has right, and how many the other; right is 1, wrong 0."""
    pairs = list(zip(ours, theirs, strict=True))
    return sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """Exact two-sided p of McNemar's test, from the items that one model alone has right and those the other has.

    Formula: twice the smaller tail of a fair coin over the items on which they disagree; 1 where they never do.
    """
    disagreed = only_ours + only_theirs
    tail = sum(math.comb(disagreed, i) for i in range(min(only_ours, only_theirs) + 1))
    return min(1.0, 2 * tail / 2**disagreed)
