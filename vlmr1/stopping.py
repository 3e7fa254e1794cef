"""SIGTERM and a terminal that is gone end a command as an exception does, so that what it started is cleaned up."""

from __future__ import annotations

import signal
import sys
import threading

INTERRUPTED = 130  # exit code of a command that Ctrl-C ended


def end_in_order() -> None:
    """From now on SIGTERM exits with 143 and SIGHUP with 129; a signal that is ignored stays so, as nohup has it."""
    if threading.current_thread() is not threading.main_thread():  # others may not
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
