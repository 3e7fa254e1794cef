"""The journal of a GRPO run: every rollout with its rewards and reasons, and the alarms of the reward-hacking watch.

Two files in the run's work folder, `rollouts.jsonl` and `alarms.jsonl`, which anybody may tail. The first process
writes; all follow, so that all know the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmr1.files import write_atomically
from vlmr1.grpo.figures import FIGURES
from vlmr1.grpo.watch import Watch
from vlmr1.launch import is_first
from vlmr1.sample import lines_of


class Journal:
    """What is written as training goes, and taken back when it goes on from an earlier step."""

    def __init__(self, work: Path, log_rollouts: bool) -> None:
        self.rollouts, self.alarms, self.log_rollouts = work / "rollouts.jsonl", work / "alarms.jsonl", log_rollouts
        self.watch = Watch()

    def write(self, step: int, rows: Sequence[Mapping[str, Any]], totals: Mapping[str, float]) -> float:
        """Write a step's rollouts, of all processes, and the alarms its totals raise; how many those are."""
        raised = self.watch.see({"step": step, **totals})
        if is_first():
            if self.log_rollouts:
                _append(self.rollouts, rows)
            _append(self.alarms, [vars(alarm) for alarm in raised])
            for alarm in raised:
                print(f"{self.rollouts.parent.name}: ALARM at step {alarm.step}: {alarm.message}", flush=True)
        return float(len(raised))

    def forget_after(self, step: int) -> None:
        """Drop what was written beyond a step."""
        for path in (self.rollouts, self.alarms):
            if path.is_file():
                whole = lines_of(path.read_text(encoding="utf-8"))  # a kill may leave half a line
                kept = [line for line in whole if json.loads(line)["step"] <= step]
                write_atomically(path, "".join(f"{line}\n" for line in kept))

    def replay(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Show the watch what it saw before, a logged row a rollout; the last rollout's totals."""
        for row in rows:
            self.watch.see(row)
        return {key: value for key, value in rows[-1].items() if key.startswith(FIGURES)} if rows else {}


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
