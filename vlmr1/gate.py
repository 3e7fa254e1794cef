"""The gate of a retraining: may the candidate take the promoted version's place? Pure functions on plain data.

Both answered the same items. On every source of `gate.improve` the candidate must be better by more than noise
(McNemar's exact test for right and wrong, else the interval of a paired bootstrap); on those of `gate.keep` it may
lose so much of the judged figure and no more.
A loss is the difference itself, not the pessimistic end of its interval: with 400 items that end lies near -0.03 for
two models that are equal, and nothing would ever pass. The interval stands beside it in the table.
Where nothing is promoted yet, the base is what must be beaten, by the same rules.
Left out on purpose: asking the models (`vlmr1.stages.promoted`), and promoting (`vlmr1.release.registry`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmr1.evaluation.compare import Result, compare
from vlmr1.measures import MEASURES
from vlmr1.sample import numbered_jsonl
from vlmr1.settings import Gate


@dataclass(frozen=True)
class Scores:
    """What one model reached on a source: its judged figure, an item at a time."""

    title: str  # of the figure, e.g. Acc@0.5
    items: Mapping[int, float]  # item: the mean of its completions' scores


@dataclass(frozen=True)
class Decision:
    allowed: bool
    reasons: tuple[str, ...]  # a sentence each: what failed where it is refused, else what passed
    table: tuple[dict[str, Any], ...]  # a row a source

    @property
    def says(self) -> str:
        return "; ".join(self.reasons)


def decide(ours: Mapping[str, Scores], theirs: Mapping[str, Scores], rival: str, gate: Gate) -> Decision:
    """Compare the candidate with `rival` (a version, or "the base") by source. Raises ValueError for unlike items."""
    failed: list[str] = []
    passed: list[str] = []
    table: list[dict[str, Any]] = []
    for source in ours:
        found = _compared(source, ours[source], theirs)
        change, noise = found["difference"], found["noise"]
        wanted, well = "", True
        if source in gate.improve:
            wanted, well = "better by more than noise", change > 0 and not noise
        elif source in gate.keep:
            # A hair is forgiven, or 0.98 - 0.96 would be more than 0.02.
            wanted, well = f"at most {gate.keep[source]:g} lost", change >= -gate.keep[source] - 1e-9
        if wanted:
            (passed if well else failed).append(f"{source}: wanted is {wanted}, and there is {found['says']}")
        table.append(
            {
                "source": source,
                "verdict": ("passed" if well else "REFUSED") if wanted else "",
                "wanted": wanted,
                "candidate": round(found["ours"], 4),
                rival: round(found["theirs"], 4),
                "difference": f"{change:+.3f} [{found['difference_low']:+.3f}, {found['difference_high']:+.3f}]",
                "noise": "yes" if noise else "no",
                "n": found["n"],
            }
        )
    return Decision(not failed, tuple(failed or passed), tuple(table))


def _compared(source: str, mine: Scores, theirs: Mapping[str, Scores]) -> dict[str, Any]:
    other = theirs.get(source)
    if other is None or mine.items.keys() != other.items.keys() or mine.title != other.title:
        raise ValueError(f"{source}: candidate and promoted version were not asked the same; remove work/promoted")
    order = sorted(mine.items)
    a, b = (np.array([scores.items[item] for item in order], dtype=np.float64) for scores in (mine, other))
    results = [Result({mine.title: float(values.mean())}, mine.title, items=values) for values in (a, b)]
    return compare(*results)


def scores_of(predictions: Path) -> dict[str, Scores]:
    """The greedy answers to every source, from a predictions folder as the evaluate stage leaves it."""
    figures = json.loads((predictions / "figures.json").read_text(encoding="utf-8"))
    found = {}
    for source, ways in figures.items():
        name, measure = next((n, m) for n, m in MEASURES.items() if m.figure == ways["greedy"]["judged"])
        values: dict[int, list[float]] = {}
        for _, row in numbered_jsonl(predictions / f"{source}-greedy.jsonl"):
            values.setdefault(row["index"], []).append(float(row[name]))
        found[source] = Scores(measure.title, {item: sum(v) / len(v) for item, v in values.items()})
    return found
