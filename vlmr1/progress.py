"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS = 10.0  # between two lines of a log


class Lines:
    """tqdm's `update` for a log: says how far the work is, at most every few seconds."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done, self.said = what, total, 0, time.monotonic()

    def update(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.said >= SECONDS and self.done != self.total:
            self.said = time.monotonic()
            print(self, flush=True)

    def __str__(self) -> str:
        return f"{self.what} {self.done}" + (f"/{self.total}" if self.total is not None else "")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """Something with `update(n)`; a `total` of None is not known beforehand."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, dynamic_ncols=True) as bar:
            yield bar
        return
    lines = Lines(what, total)
    yield lines
    print(lines, flush=True)


def counted(items: Iterable[T], bar: Any) -> Iterator[T]:
    """The items as they come, each counted by `bar` once it has been dealt with."""
    for item in items:
        yield item
        bar.update(1)
