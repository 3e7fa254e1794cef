"""Tasks: each owns its prompt, its truth, its rewards and its score. A sample's `task` names one of `TASKS`."""

from __future__ import annotations

from vlmr1.tasks import rec

TASKS = {"rec": rec}
