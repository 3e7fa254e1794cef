"""The lines of a training's journal, read as far as they are whole; what is not of its form gets a sentence.

Left out on purpose: fields that the page only passes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vlmr1.sample import from_json
from vlmr1.tasks import TASKS

ROLLOUTS, QUESTIONS, ALARMS = "rollouts.jsonl", "questions.jsonl", "alarms.jsonl"
NUMBER = (int, float)
FIELDS: dict[str, dict[str, Any]] = {  # what is read of a line, and of which types it is
    ROLLOUTS: {
        "step": int,
        "item": int,
        "number": int,
        "source": str,
        "completion": str,
        "boxes": list,
        "rewards": dict,
        "reward": NUMBER,
        "advantage": NUMBER,
        "judged": NUMBER,
        "truncated": bool,
    },
    QUESTIONS: {"item": int, "images": str},
    ALARMS: {"step": int, "message": str},
}
PART = {"value": NUMBER, "parsed": bool, "reason": str}  # of a reward


class Line(NamedTuple):
    """One line: its place in the file in bytes, itself, and what it says."""

    start: int
    end: int
    content: bytes
    row: dict[str, Any]


def lines(path: Path, start: int) -> Iterator[Line]:
    """The whole lines from `start` on; none of a file that is not there. Raises ValueError with file, place, field."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for content in file:
            if not content.endswith(b"\n"):
                return  # it is being written
            try:
                row = _row(content, path.name)
            except ValueError as error:
                raise ValueError(f"{path}: at byte {start}: {error}") from error
            yield Line(start, start + len(content), content, row)
            start += len(content)


def _row(content: bytes, name: str) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except ValueError as error:
        raise ValueError(f"no JSON ({error}); the file is damaged, take it from the training again") from error
    if not isinstance(row, dict):
        raise ValueError("no JSON object; the file is no log of a training")
    _check(row, FIELDS[name], "")
    if name == ROLLOUTS:
        for reward, part in row["rewards"].items():
            _check(part if isinstance(part, dict) else {}, PART, f"rewards.{reward}.")
    if name == QUESTIONS:
        try:
            task = from_json(row).task
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"no question as training keeps it ({type(error).__name__}: {error})") from error
        if task not in TASKS:
            raise ValueError(f"task: {task!r} is not known; one of {', '.join(TASKS)}")
    return row


def _check(row: dict[str, Any], fields: dict[str, Any], within: str) -> None:
    for name, kind in fields.items():
        if name not in row:
            raise ValueError(f"no {within}{name}; it is the log of an older training, run that again")
        if not isinstance(row[name], kind):
            raise ValueError(f"{within}{name}: {str(row[name])[:40]!r} is not what training writes there")
