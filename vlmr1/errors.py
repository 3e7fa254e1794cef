"""What went wrong that trying again may mend, told apart from what a person must mend."""

from __future__ import annotations

import errno
import sys

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
RETRY = 75  # exit code of a stage for it: EX_TEMPFAIL of sysexits.h


class TransientError(OSError):
    """A store, a server or a network that failed us for now, after the tries that a library makes by itself."""


def transient(error: BaseException) -> bool:
    """Whether the same command may well succeed later: `TransientError`, or memory that was short."""
    kinds: list[type[BaseException]] = [TransientError, MemoryError]
    if "torch" in sys.modules:
        kinds.append(sys.modules["torch"].OutOfMemoryError)
    return isinstance(error, tuple(kinds))


def no_room(error: BaseException) -> bool:
    """Whether a disk, a quota or a limit on files was full, however the library that wrote says it."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    said = str(error)  # safetensors and torch raise errors of their own
    return any(f"os error {code})" in said for code in NO_ROOM) or "enforce fail at inline_container" in said
