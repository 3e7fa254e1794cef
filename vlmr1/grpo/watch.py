"""The watch over a run: says when completions grow, or the reward rises, and the judged metric does not follow; and,
where servers sample, when their log-probs part from training's.

VLM-R1 (arXiv 2504.07615, on detection): rewarded by AP50, a model learned to name ever more boxes. Its completions
went from 150 to over 1000 tokens while COCO mAP stood still.
What parts suddenly, though the servers had the very weights that are trained, is a server that has others, or reads
or computes otherwise than before.
A watch holds nothing but what it has seen, so a resumed run rebuilds it by showing it its rows again.
Left out on purpose: stopping the run, which is its owner's to decide.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

SPAN = 20  # rollouts that an average looks back over, and that must be seen before anything is said
STEADY = 5 * SPAN  # rollouts that its noise is measured over
FACTOR = 1.5  # growth that must be earned
LEAST = {"completion_length": 8.0, "boxes": 1.0}  # tokens, boxes: smaller growth is none, whatever the factor
NEAR = 1.1  # an average up to this multiple of its lowest has not left it
LIKELY = 2.0  # standard errors of a rise that earns growth
SURE = 6.0  # standard errors of what alarms: many, for a mark is the extreme of a long run
FIGURES = (*LEAST, "reward", "judged")
JUMP = 5.0  # times the median of the sets before: what parts
FEW, MANY = 3, 100  # sets that a median needs, and looks back over
# Below the first nothing has parted, above the second everything has, whatever was before. A difference is in nats a
# token; programs that differ in precision alone stay far under its second.
BOUNDS = {"sampler/difference": (1e-3, 0.3), "sampler/cut_share": (0.05, 0.5)}
EVIDENCE = ("duplicate_share", "truncated_share", "parse_failure_rate")  # said beside an alarm


@dataclass(frozen=True)
class Alarm:
    step: int
    kind: str  # "completion_length", "boxes", "reward" or a key of BOUNDS
    message: str  # with the figures


@dataclass(frozen=True)
class Average:
    """The plain mean of a figure's first SPAN rollouts, then its exponential moving average; and its noise.

    `scatter` is the variance of one rollout's figure: half the mean squared difference of neighbours, which a trend
    hardly touches (von Neumann 1941). The weights keep the average's own variance at scatter / SPAN.
    """

    n: int = 0
    value: float = 0.0
    scatter: float = 0.0
    last: float = 0.0

    def add(self, figure: float) -> Average:
        n, half = self.n + 1, (figure - self.last) ** 2 / 2
        weight = 1 / n if n <= SPAN else 2 / (SPAN + 1)
        scatter = self.scatter + (half - self.scatter) / min(n - 1, STEADY) if n > 1 else 0.0
        return Average(n, self.value + weight * (figure - self.value), scatter, figure)

    def above(self, other: Average, errors: float) -> bool:
        """Whether it exceeds another by more than so many standard errors of their difference."""
        return self.value - other.value > errors * math.sqrt((self.scatter + other.scatter) / SPAN)


@dataclass(frozen=True)
class Mark:
    """What later averages are compared with."""

    step: int
    figure: Average  # of the alarm's kind
    judged: Average | None  # None: nothing judges this run


@dataclass
class Watch:
    """Shown each rollout's row, in order, it returns the alarms newly raised, one a kind until it has gone back.

    A row has `step` and any of `completion_length` (tokens), `boxes` (mean number a completion), `reward`, `judged`
    (the metric that the task is judged by) and `EVIDENCE` (shares); all are means over the rollout.

    - Growth, of `completion_length` or `boxes`. The mark is the lowest average so far, with the judged average of the
      last time it was near. A growth from there by `FACTOR`, by `LEAST` and beyond noise must be earned: the judged
      average has risen since by more than its noise. If so, the mark moves here, any alarm is over and the next growth
      must be earned anew; if not, or if nothing judges, it alarms. It has gone back below half of `FACTOR`'s growth.
    - `reward`. The mark is the judged average's highest. It alarms when the judged average has fallen from there and
      the reward's has risen since, both beyond noise. It has gone back when less than half of that is left.
    """

    averages: dict[str, Average] = field(default_factory=lambda: dict.fromkeys(FIGURES, Average()))
    marks: dict[str, Mark] = field(default_factory=dict)
    raised: set[str] = field(default_factory=set)

    def see(self, row: Mapping[str, float | None]) -> list[Alarm]:
        for name in FIGURES:
            figure = row.get(name)
            if figure is not None and math.isfinite(figure):
                self.averages[name] = self.averages[name].add(figure)
        ready = {name: average for name, average in self.averages.items() if average.n >= SPAN}
        step = int(row["step"] or 0)
        found = [kind for kind in LEAST if kind in ready and self._grown(kind, step, ready)]
        if "judged" in ready and "reward" in ready and self._parted(step, ready["reward"], ready["judged"]):
            found.append("reward")
        new = [Alarm(step, kind, self._message(kind, row)) for kind in found if kind not in self.raised]
        self.raised.update(found)
        return new

    def _grown(self, kind: str, step: int, ready: Mapping[str, Average]) -> bool:
        now, judged = ready[kind], ready.get("judged")
        mark = self.marks.setdefault(kind, Mark(step, now, judged))
        low = mark.figure
        if now.value <= NEAR * low.value:
            self.marks[kind] = Mark(step, now if now.value < low.value else low, judged)
        if now.value < (1 + FACTOR) / 2 * low.value:
            self.raised.discard(kind)
        if now.value < max(FACTOR * low.value, low.value + LEAST[kind]) or not now.above(low, SURE):
            return False
        if judged is None or mark.judged is None or not judged.above(mark.judged, LIKELY):
            return True
        self.marks[kind] = Mark(step, now, judged)
        self.raised.discard(kind)
        return False

    def _parted(self, step: int, reward: Average, judged: Average) -> bool:
        mark = self.marks.setdefault("reward", Mark(step, reward, judged))
        top = mark.judged or judged
        if judged.value > top.value:
            self.marks["reward"] = Mark(step, reward, judged)
        if not top.above(judged, SURE / 2):
            self.raised.discard("reward")
        return top.above(judged, SURE) and reward.above(mark.figure, SURE)

    def _message(self, kind: str, row: Mapping[str, float | None]) -> str:
        """E.g. "since step 40 completion_length 152 -> 231, judged 0.412 -> 0.405, truncated_share 0.12"."""
        mark, now = self.marks[kind], self.averages
        said = [f"since step {mark.step} {kind} {mark.figure.value:.5g} -> {now[kind].value:.5g}"]
        said.append(f"judged {mark.judged.value:.3f} -> {now['judged'].value:.3f}" if mark.judged else "judged unknown")
        return ", ".join([*said, *(f"{name} {row[name]:.2f}" for name in EVIDENCE if row.get(name) is not None)])


@dataclass
class Alike:
    """Shown a row a set of rollouts, with its `step`, `staleness` and figures of `BOUNDS`; the alarms newly raised.

    A figure has parted when it is `JUMP` times the median of the sets before, or beyond its bound. What has parted is
    no part of the median, and raises one alarm until a set is as before. A set of weights that were not the present
    ones says nothing, nor does one in process.
    """

    seen: dict[str, deque[float]] = field(default_factory=lambda: {name: deque(maxlen=MANY) for name in BOUNDS})
    parted: set[str] = field(default_factory=set)

    def see(self, row: Mapping[str, float | None]) -> list[Alarm]:
        new: list[Alarm] = []
        for name, (least, most) in BOUNDS.items():
            now, seen = row.get(name), self.seen[name]
            if now is None or row.get("staleness") != 0:
                continue
            usual = median(seen) if len(seen) >= FEW else most / JUMP
            if not now > max(least, min(JUMP * usual, most)):
                seen.append(now)
                self.parted.discard(name)
            elif name not in self.parted:
                self.parted.add(name)
                before = f", {usual:.2g} before" if len(seen) >= FEW else ""
                said = f"{name} {now:.2g}{before}, with the present weights"
                mend = "look at the servers' log, or start them again"
                new.append(Alarm(int(row["step"] or 0), name, f"{said}: {mend}"))
        return new
