"""Tasks: each owns its prompt, its truth, its rewards and its score. A sample's `task` names one of `TASKS`."""

from __future__ import annotations

from vlmr1.tasks import gui, math, ovd, rec

TASKS = {"rec": rec, "ovd": ovd, "math": math, "gui": gui}
