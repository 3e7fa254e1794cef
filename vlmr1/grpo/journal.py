"""The journal of a GRPO run: every rollout with its rewards and reasons, what was asked, and the watch's alarms.

Three files in the run's work folder, which anybody may tail: `rollouts.jsonl`; `questions.jsonl`, each question once,
as training's lists have it, with its picture folder; and `alarms.jsonl`. `vlmr1 rollouts` shows them. The first process
writes; all follow, so that all know the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmr1.files import write_atomically
from vlmr1.grpo.figures import FIGURES
from vlmr1.grpo.watch import Alarm, Alike, Watch
from vlmr1.launch import is_first
from vlmr1.sample import Sample, Source, lines_of, to_json
from vlmr1.watching import JOURNAL


class Journal:
    """What is written as training goes, and taken back when it goes on from an earlier step."""

    def __init__(self, work: Path, log_rollouts: bool) -> None:
        self.rollouts, self.questions, self.alarms = (work / name for name in JOURNAL)
        self.log_rollouts = log_rollouts
        self.asked: set[int] = set()  # items in questions.jsonl
        self.watch, self.alike = Watch(), Alike()
        self.step: int | None = None  # the last that was written and not yet compared

    def write(
        self,
        step: int,
        rows: Sequence[Mapping[str, Any]],
        questions: Sequence[Mapping[str, Any]],
        totals: Mapping[str, float],
    ) -> float:
        """Write a step's rollouts, of all processes, and the alarms its totals raise; how many those are."""
        self.step = step
        raised = self.watch.see({"step": step, **totals})
        if is_first() and self.log_rollouts:
            new = {one["item"]: one for one in questions if one["item"] not in self.asked}
            _append(self.questions, [new[item] for item in sorted(new)])
            self.asked |= new.keys()
            _append(self.rollouts, rows)
        return self._raise(raised)

    def see(self, totals: dict[str, float], figures: dict[str, float]) -> dict[str, float]:
        """See what the first loss of a set showed of the servers; its alarms are added to the totals."""
        step, self.step = self.step, None
        if step is not None:
            totals["alarms"] += self._raise(self.alike.see({"step": step, **totals, **figures}))
        return figures

    def _raise(self, raised: Sequence[Alarm]) -> float:
        """Write and print alarms; how many those are."""
        if is_first():
            _append(self.alarms, [vars(alarm) for alarm in raised])
            for alarm in raised:
                print(f"{self.rollouts.parent.name}: ALARM at step {alarm.step}: {alarm.message}", flush=True)
        return float(len(raised))

    def forget_after(self, step: int) -> None:
        """Drop what was written beyond a step."""
        for path in (self.rollouts, self.questions, self.alarms):
            if path.is_file():
                whole = lines_of(path.read_text(encoding="utf-8"))  # a kill may leave half a line
                kept = [line for line in whole if json.loads(line)["step"] <= step]
                write_atomically(path, "".join(f"{line}\n" for line in kept))
                if path == self.questions:
                    self.asked = {json.loads(line)["item"] for line in kept}

    def replay(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Show the watch what it saw before, a logged row a rollout; the last rollout's totals."""
        for row in rows:
            self.watch.see(row)
            self.alike.see(row)
        return {key: value for key, value in rows[-1].items() if key.startswith(FIGURES)} if rows else {}


def question(step: int, item: int, source: Source, sample: Sample) -> dict[str, Any]:
    """A line of questions.jsonl: the sample's own, where its pictures lie, and the step that first asked it."""
    return {"step": step, "item": item, "images": source.images.as_posix()} | to_json(sample)


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
