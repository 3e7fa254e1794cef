"""What the UI shows of a training while it runs: progress with the time left, curves, rollouts as pictures, alarms.

All of it is read from the files that the stage appends to, which knows nothing of Prefect.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.notify import alarm_raised
from flows.rollouts import show_rollouts
from flows.showing import key_of, show_picture, show_text, unfailing
from vlmr1.files import write_json
from vlmr1.sample import lines_of

RECORDS = Path("work/records")  # what differs from run to run by nature
SECONDS = 2.0  # between two looks at a training's metrics
PICTURES = 60.0  # between two sets of pictures while it trains


def follow_training(stage: str, done: threading.Event) -> None:
    """Keep the artifacts in step with a training stage until `done`; at its end show what is final."""
    training = Training(stage)
    while not done.wait(SECONDS):
        with unfailing(f"{stage} was not looked at; it will be again"):
            training.look(finished=False)
    with unfailing(f"the page lacks the end of {stage}"):
        training.look(finished=True)


class Training:
    """A training stage as it is seen from outside."""

    def __init__(self, stage: str) -> None:
        self.stage, self.name = stage, stage.replace("@", "-")
        self.artifact: Any = None
        self.rows: list[dict[str, float]] = []
        self.told = RECORDS / f"{self.name}-told.json"  # alarms: one that goes on after a failure repeats none
        if not (Path("work") / self.name / "alarms.jsonl").is_file():
            self.told.unlink(missing_ok=True)
        self.seen: tuple[float, float] | None = None  # (when, steps done) at the first look
        self.listed: list[dict[str, Any]] = []
        self.said, self.drawn = "", time.monotonic()

    def look(self, finished: bool) -> None:
        kept = Path("logs") / self.name  # there when it has ended well
        folder = kept if finished and self.rows and kept.is_dir() else Path("work") / self.name
        if not (folder / "metrics.jsonl").is_file():
            return  # no training stage, or none yet
        self.rows = _rows(folder / "metrics.jsonl")
        if not self.rows:
            return
        self._alarms(folder / "alarms.jsonl")  # first: what matters most must not wait for what may fail
        self._progress(finished)
        if finished or time.monotonic() - self.drawn > PICTURES:
            self.drawn = time.monotonic()
            _curves(self.name, self.rows)
            if (folder / "rollouts.jsonl").is_file():
                show_rollouts(folder / "rollouts.jsonl")

    def _progress(self, finished: bool) -> None:
        step, steps = self.rows[-1]["step"], self.rows[-1]["steps"]
        now = time.monotonic()
        first, done = self.seen = self.seen or (now, step)
        said = f"{self.stage}: step {step:.0f} of {steps:.0f}"
        if step < steps and step > done and not finished:
            said += f", {spell((now - first) / (step - done) * (steps - step))} left"
        if said == self.said:
            return
        self.said, share = said, 100 * step / steps
        if self.artifact is None:
            key = key_of(self.name, "progress")
            self.artifact = create_progress_artifact(progress=share, key=key, description=said)
        else:
            update_progress_artifact(self.artifact, progress=share, description=said)

    def _alarms(self, path: Path) -> None:
        """Show the alarms, and tell of those that are not told yet who is to be notified."""
        found = _rows(path) if path.is_file() else []
        told = json.loads(self.told.read_text(encoding="utf-8")) if self.told.is_file() else []
        for one in [one for one in found if one not in told]:
            alarm_raised(self.stage, one)
            told.append(one)
            write_json(self.told, told)
        if found and found != self.listed:
            listed = "\n".join(f"- step {one['step']}: {one['message']}" for one in found)
            description = f"{self.name}: signs that the policy games its reward"
            show_text(key_of(self.name, "alarms"), f"## Alarms\n\n{listed}\n", description)
            self.listed = found


def spell(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that is being appended to."""
    return [json.loads(line) for line in lines_of(path.read_text(encoding="utf-8"))]


def _curves(name: str, rows: list[dict[str, float]]) -> None:
    from vlmr1.report.figures import curves, reward_curves  # matplotlib, wanted only here

    keys = reward_curves(rows)
    keys = {key: label for key, label in keys.items() if key in rows[0]} or {"loss": "loss"}
    label = "reward" if "reward" in keys else "loss"
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "curves.png"
        curves(rows, keys, label, picture)
        show_picture(key_of(name, "curves"), picture, f"{name}: {label} by step")
        if "completion_length" in rows[0]:
            curves(rows, {"completion_length": "length"}, "completion length, tokens", picture)
            show_picture(key_of(name, "length"), picture, f"{name}: completion length by step")
            watched = {"judged": "judged metric", "parse_failure_rate": "cannot be read", "truncated_share": "cut off"}
            curves(rows, watched | {"duplicate_share": "said before"}, "share of completions", picture)
            show_picture(key_of(name, "watch"), picture, f"{name}: what tells of reward hacking, by step")
            curves(rows, {"boxes": "boxes"}, "boxes a completion", picture)
            show_picture(key_of(name, "boxes"), picture, f"{name}: boxes a completion by step")
