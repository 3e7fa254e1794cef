"""bench-serve's figures: of a round, of a level over its rounds, and of one server against another.

Means and rates of a level are medians over its rounds; a P99 is of all its answers together, and of fewer than 100 the
largest. A ratio is taken round by round, so that what both servers met at one time stands against each other, and has
its least and most beside it: of n rounds of two servers that are alike, 1 lies among them with 1 - 2^(1 - n).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from vlmr1.serving.bench import Round

Level = dict[str, float | int]
Levels = dict[int, list[Round]]  # of one server, by requests under way
ENOUGH = 100  # answers for a P99
RATIOS = ("rps", "tokens_per_second", "latency_mean", "latency_p99", "ttft_mean", "ttft_p99", "tpot_mean", "tpot_p99")


def figures(rounds: Sequence[Round]) -> Level:
    """Figures of rounds taken together, seconds; without a single answer only that they have none."""
    done = [one for of in rounds for one in of.done]
    asked = len(done) + sum(len(of.failures) for of in rounds)
    level: Level = {"requests": asked, "success": len(done) / asked if asked else 0.0}
    if not done:
        return level
    seconds = sum(of.seconds for of in rounds)
    level |= {"seconds": seconds, "rps": len(done) / seconds}
    level["tokens_per_second"] = sum(one.tokens for one in done) / seconds
    level["pieces_mean"] = float(np.mean([one.pieces for one in done]))
    steps = [(one.latency - one.first) / (one.tokens - 1) for one in done if one.tokens > 1]
    of_each = {"latency": [one.latency for one in done], "ttft": [one.first for one in done], "tpot": steps}
    for name, values in of_each.items():
        if values:
            highest = np.percentile(values, 99) if len(values) >= ENOUGH else max(values)
            level |= {f"{name}_mean": float(np.mean(values)), f"{name}_p99": float(highest)}
    return level


def level_of(rounds: Sequence[Round]) -> Level:
    """A level's figures over its rounds; a round without an answer counts against its success alone."""
    level, each = figures(rounds), [figures([one]) for one in rounds if one.done]
    return level | {
        key: median(one[key] for one in each if key in one)
        for key in level
        if key in ("rps", "tokens_per_second") or key.endswith("_mean")
    }


def ratios_of(ones: Sequence[Sequence[Round]], others: Sequence[Sequence[Round]]) -> dict[str, dict[str, float]]:
    """The others' figures by the ones', round by round, whatever is taken together as one: median, least and most."""
    found = {}
    pairs = [(figures(one), figures(other)) for one, other in zip(ones, others, strict=False)]
    for key in RATIOS:
        each = [other[key] / one[key] for one, other in pairs if one.get(key) and key in other]
        if each:
            found[key] = {"median": median(each), "least": min(each), "most": max(each)}
    return found


def level_ratios(one: Levels, other: Levels, at_once: int) -> dict[str, dict[str, float]]:
    """The ratios at one level."""
    return ratios_of([[of] for of in one[at_once]], [[of] for of in other[at_once]])


def ratios_of_all(one: Levels, other: Levels) -> dict[str, dict[str, float]]:
    """The ratios of whole rounds, all levels together."""
    return ratios_of(list(zip(*one.values(), strict=False)), list(zip(*other.values(), strict=False)))


def failures_of(rounds: Iterable[Round]) -> dict[str, list[str]]:
    """By kind what failures say, the first first."""
    said: dict[str, list[str]] = {}
    for one in rounds:
        for failure in one.failures:
            said.setdefault(failure.kind, []).append(failure.said)
    return said


def reasons(rounds: Iterable[Round]) -> str:
    """How many failed for what, and what the first of them said; empty where none did."""
    kinds = failures_of(rounds)
    counted = ", ".join(f"{len(said)} {kind}" for kind, said in kinds.items())
    return f"{counted}; the first {next(iter(kinds.values()))[0]}" if kinds else ""
