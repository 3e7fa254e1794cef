"""Whether a run of DVC is under way in a folder, whose params.yaml must then stay as it is: every stage reads it anew.

DVC holds `.dvc/tmp/lock` except while a stage's command runs, and then notes in `.dvc/tmp/rwlock` what that stage reads
and writes, and for which process. Neither needs DVC to be read.
Left out on purpose: `core.hardlink_lock`, whose first lock is of another kind; its second is the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def between_runs(folder: Path) -> Iterator[None]:
    """Do something to a project's folder while no run is under way there, and none can begin.

    Raises ValueError where one is.
    """
    place = folder / ".dvc" / "tmp"
    lock = place / "lock"
    if not lock.is_file():  # DVC never ran here
        yield
        return
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(_busy("a command of DVC")) from None
        for process, command in sorted(_stages(place / "rwlock")):
            if _alive(process):
                raise ValueError(_busy(f"`{command}`, process {process},"))
        yield


def _busy(what: str) -> str:
    return f"{what} is under way here, and its next stage would read other params.yaml than its last; wait for its end"


def _stages(rwlock: Path) -> set[tuple[int, str]]:
    """(process, command) of every stage that DVC noted; of one that was killed the note stays."""
    try:
        noted = json.loads(rwlock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    except json.JSONDecodeError:  # just being written
        raise ValueError(_busy("a command of DVC")) from None
    writers, readers = noted.get("write", {}).values(), noted.get("read", {}).values()
    return {(one["pid"], one["cmd"]) for one in [*writers, *(one for many in readers for one in many)]}


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
