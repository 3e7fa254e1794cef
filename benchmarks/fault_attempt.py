"""One attempt to publish or to pull a small release, as a process that faults are done to.

    python -m benchmarks.fault_attempt publish STORE CHECKPOINT SECONDS
    python -m benchmarks.fault_attempt pull STORE DIR SECONDS

The real functions, with smaller parts and pauses, so that an attempt meets every kind of request in a second; SECONDS
are those after which a server that says nothing is given up.
What the project would say is printed as `KIND: sentence`, and the exit code is a stage's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import vlmr1.release.pull as pulling
import vlmr1.release.s3 as s3
from tests.releases import release
from vlmr1.errors import RETRY, TransientError, no_room
from vlmr1.release.store import open_store

NAME = "toy"


def smaller(patience: float) -> None:
    """Parts, ranges and waits for a checkpoint of a few megabytes and a server next door."""
    s3.PART, s3.READ = 5 << 20, patience
    pulling.RANGE, pulling.PAUSE = 1 << 20, 0.02


def main() -> None:
    action, url, folder, patience = sys.argv[1:]
    smaller(float(patience))
    try:
        if action == "publish":
            print(f"done: {release(url, Path(folder))}")
        else:
            print(f"done: {pulling.pull(open_store(url), f'{NAME}@latest', Path(folder), print)['version']}")
    except (ValueError, OSError) as error:  # as vlmr1.stages.run_stage has it
        if not isinstance(error, ValueError | FileNotFoundError | TransientError) and not no_room(error):
            raise
        print(f"{type(error).__name__}: {error}")
        sys.exit(RETRY if isinstance(error, TransientError) else 1)


if __name__ == "__main__":
    main()
