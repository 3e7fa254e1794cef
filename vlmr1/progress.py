"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

SECONDS = 10.0  # between two lines of a log


class Lines:
    """tqdm's `update` for a log: says how far the work is, at most every few seconds."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self.said = what, total, 0, time.monotonic()

    def update(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.said >= SECONDS and self.done < self.total:
            self.said = time.monotonic()
            print(f"{self.what} {self.done}/{self.total}", flush=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Any]:
    """Something with `update(n)`."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, dynamic_ncols=True) as bar:
            yield bar
        return
    lines = Lines(what, total)
    yield lines
    print(f"{what} {lines.done}/{total}", flush=True)
