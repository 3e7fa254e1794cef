"""Tasks: each owns its prompt, its truth, its rewards and its score. A sample's `task` names one of `TASKS`."""

from __future__ import annotations

from typing import Any

from vlmr1.answers import Answer
from vlmr1.tasks import gui, math, ovd, rec

TASKS = {"rec": rec, "ovd": ovd, "math": math, "gui": gui}


def read_of(said: Answer, task: str) -> dict[str, Any]:
    """What was read of an answer, as plain data: the box that counts, all boxes with their labels, or the words."""
    if task == "rec":
        return {"box": None if said.box is None else [round(v, 2) for v in said.box]}
    if task == "ovd":
        found = said.found if said.text is not None else ()
        return {"boxes": [[round(v, 2) for v in box] for box, _ in found], "labels": [label for _, label in found]}
    return {"said": said.said}
