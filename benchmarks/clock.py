"""A clock that is wrong, for this process alone: the computer's own is never touched.

What Python asks through `time` and `datetime` is moved; file systems go on stamping files with the true time, as a
network's do when one computer's clock is off.
"""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any


def move_clock(seconds: float) -> None:
    """Let `time.time` and `datetime.now` be so many seconds ahead, in modules that are imported already too."""
    if not seconds:
        return
    true_time, true_datetime = time.time, datetime.datetime

    class Moved(true_datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return true_datetime.fromtimestamp(true_time() + seconds, tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + seconds
    datetime.datetime = Moved  # type: ignore[misc]
    for module in list(sys.modules.values()):  # those that took the name by `from datetime import datetime`
        if getattr(module, "__dict__", {}).get("datetime") is true_datetime:
            module.datetime = Moved  # type: ignore[attr-defined]
