"""The gate of a retraining: may the candidate take the promoted version's place? Pure functions on plain data.

Both answered the same items. On every source of `gate.improve` the candidate must be better by more than noise and by
`gate.gain`; on those of `gate.keep` it may lose so much of the judged figure and no more. What is noise: McNemar's
exact test where every item is right or wrong and has a picture of its own, else the interval of a paired bootstrap over
pictures, because answers to one picture go together.
Each retraining is another try at the same items: of many that are no better, a share of `gate.level` / 2 passes.
A loss is the difference itself, not the pessimistic end of its interval: with 400 items that end lies near -0.03 for
two models that are equal, and nothing would ever pass. The interval stands beside it in the table.
Where nothing is promoted yet, the base is what must be beaten, by the same rules.
Left out on purpose: asking the models (`vlmr1.stages.promoted`), and promoting (`vlmr1.release.registry`).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmr1.evaluation.intervals import RESAMPLES, disagreements, mcnemar
from vlmr1.measures import MEASURES
from vlmr1.sample import numbered_jsonl
from vlmr1.settings import Gate

HAIR = 1e-9  # that is forgiven, or 0.98 - 0.96 would be more than 0.02


@dataclass(frozen=True)
class Scores:
    """What one model reached on a source: its judged figure, an item at a time."""

    title: str  # of the figure, e.g. Acc@0.5
    items: Mapping[int, float]  # item: the mean of its completions' scores
    pictures: Mapping[int, tuple[str, ...]] = field(default_factory=dict)  # item: what it shows, where it shows any


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
        found = _compared(source, ours[source], theirs, gate.level)
        change, noise = found["difference"], found["noise"]
        wanted, well = "", True
        if source in gate.improve:
            wanted, well = "better by more than noise", change > 0 and not noise
            if gate.gain:
                wanted, well = f"{wanted} and by {gate.gain:g}", well and change >= gate.gain - HAIR
        elif source in gate.keep:
            wanted, well = f"at most {gate.keep[source]:g} lost", change >= -gate.keep[source] - HAIR
        if wanted:
            (passed if well else failed).append(f"{source}: wanted is {wanted}; {found['says']}")
        table.append(
            {
                "source": source,
                "verdict": ("passed" if well else "REFUSED") if wanted else "",
                "wanted": wanted,
                "candidate": round(found["ours"], 4),
                rival: round(found["theirs"], 4),
                "difference": f"{change:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]",
                "noise": "yes" if noise else "no",
                "n": found["n"],
            }
        )
    return Decision(not failed, tuple(failed or passed), tuple(table))


def _compared(source: str, mine: Scores, theirs: Mapping[str, Scores], level: float) -> dict[str, Any]:
    """The difference of the figures, its interval, and whether it is noise, in numbers and in a sentence."""
    other = theirs.get(source)
    if other is None or mine.items.keys() != other.items.keys() or mine.title != other.title:
        raise ValueError(f"{source}: candidate and promoted version were not asked the same; remove work/promoted")
    order = sorted(mine.items)
    a, b = (np.array([scores.items[item] for item in order], dtype=np.float64) for scores in (mine, other))
    pictures = [mine.pictures.get(item) or item for item in order]
    count, low, high = _interval(a - b, pictures, level)
    if count == len(order) and {*np.unique(a), *np.unique(b)} <= {0.0, 1.0}:
        p = mcnemar(*disagreements(a.tolist(), b.tolist()))
        noise, why = p >= level, f"p = {p:.3g}"
    else:
        over = f", {count} pictures" if count < len(order) else ""
        noise, why = low <= 0 <= high, f"{100 * (1 - level):g} % interval [{low:+.4f}, {high:+.4f}]{over}"
    difference = float(a.mean() - b.mean())
    says = f"a difference of {difference:+.4f} {'may well be' if noise else 'is more than'} noise ({why})"
    found = {"n": len(order), "ours": float(a.mean()), "theirs": float(b.mean()), "difference": difference}
    return found | {"low": low, "high": high, "noise": noise, "says": says}


def _interval(differences: NDArray[np.float64], pictures: Sequence[Hashable], level: float) -> tuple[int, float, float]:
    """How many pictures there are, and the percentile interval of the mean difference over draws of them."""
    numbers = {picture: number for number, picture in enumerate(dict.fromkeys(pictures))}
    where = np.array([numbers[picture] for picture in pictures])
    sums, items = np.bincount(where, differences), np.bincount(where)
    picks = np.random.default_rng(0).integers(0, len(items), (RESAMPLES, len(items)))
    means = sums[picks].sum(axis=1) / items[picks].sum(axis=1)
    low, high = np.quantile(means, [level / 2, 1 - level / 2])
    return len(items), float(low), float(high)


def scores_of(predictions: Path) -> dict[str, Scores]:
    """The greedy answers to every source, from a predictions folder as the evaluate stage leaves it."""
    figures = json.loads((predictions / "figures.json").read_text(encoding="utf-8"))
    found = {}
    for source, ways in figures.items():
        name, measure = next((n, m) for n, m in MEASURES.items() if m.figure == ways["greedy"]["judged"])
        values: dict[int, list[float]] = {}
        pictures: dict[int, tuple[str, ...]] = {}
        for _, row in numbered_jsonl(predictions / f"{source}-greedy.jsonl"):
            values.setdefault(row["index"], []).append(float(row[name]))
            pictures[row["index"]] = tuple(row["image"])
        found[source] = Scores(measure.title, {item: sum(v) / len(v) for item, v in values.items()}, pictures)
    return found
