"""What a training shows of itself: `metrics.jsonl`, which anybody may tail, and a bar or plain lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

JOURNAL = ("rollouts.jsonl", "questions.jsonl", "alarms.jsonl")  # what GRPO keeps besides (vlmr1.grpo.journal)
SHOWN = ("loss", "reward", "completion_length", "grad_norm")


def label(work: Path) -> str:
    """A training's name in what it prints: that of its folder, or of the one above a folder that is just `work`."""
    return work.name if work.name != "work" else work.absolute().parent.name


class WatchedRun(TrainerCallback):
    """Keeps `metrics.jsonl` in step with training and shows how far it is. The first process alone uses it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first = time.monotonic(), state.global_step
        rows = logged_rows(state)  # what a resumed run had logged
        (self.work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=self.first, desc=label(self.work), dynamic_ncols=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        row = _row(state.log_history[-1], state)
        with (self.work / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = {key: f"{row[key]:.3f}" for key in SHOWN if key in row}
        done = state.global_step
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(1)
        elif done % max(1, state.max_steps // 20) == 0 or done == state.max_steps:
            left = (time.monotonic() - self.started) / max(1, done - self.first) * (state.max_steps - done)
            figures = "  ".join(f"{key} {value}" for key, value in shown.items())
            print(f"{label(self.work)} step {done}/{state.max_steps}  {figures}  {left:.0f} s left", flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def logged_rows(state: Any) -> list[dict[str, float]]:
    """What was logged at each step, keys in one order, whether the Trainer's state was lived or loaded."""
    return [_row(row, state) for row in state.log_history if "loss" in row]


def _row(row: dict[str, float], state: Any) -> dict[str, float]:
    return {"step": row["step"], "steps": state.max_steps} | {key: row[key] for key in sorted(row) if key != "step"}
