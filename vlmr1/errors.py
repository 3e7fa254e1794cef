"""What went wrong that trying again may mend, told apart from what a person must mend."""

from __future__ import annotations

import sys

RETRY = 75  # exit code of a stage for it: EX_TEMPFAIL of sysexits.h


class TransientError(OSError):
    """A store, a server or a network that failed us for now, after the tries that a library makes by itself."""


def transient(error: BaseException) -> bool:
    """Whether the same command may well succeed later: `TransientError`, or memory that was short."""
    kinds: list[type[BaseException]] = [TransientError, MemoryError]
    if "torch" in sys.modules:
        kinds.append(sys.modules["torch"].OutOfMemoryError)
    return isinstance(error, tuple(kinds))
