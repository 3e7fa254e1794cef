"""What server and worker say, on its way into a file that its owner alone may read: addresses without their secrets.

    … | python -m flows.log FILE URL

A webhook's address is a key, all of it, and whoever fails to reach it says so in full. So of every http address the
host remains, but for those of our own server at URL.
Left out on purpose: files that rotate; a system's own service manager does these (`flows.up --unit`).
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TextIO

from vlmr1.scrubbed import HIDDEN, scrubbed

_WEB = re.compile(r"(https?://[^/\s\"'<>`?#]*)[/?#][^\s\"'<>`]*", re.IGNORECASE)


def without_paths(line: str, ours: str) -> str:
    """The line, with the host alone of every http address that is not ours."""

    def short(found: re.Match[str]) -> str:
        return found[0] if found[1] == ours else f"{found[1]}/{HIDDEN}"

    return _WEB.sub(short, scrubbed(line))


def open_log(path: Path) -> TextIO:
    """The file, to add to; others may not read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8", errors="replace", buffering=1)
    os.fchmod(file.fileno(), 0o600)
    return file


def main() -> None:
    path, ours = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when all that write to it have ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open_log(Path(path)) as file:
        for line in sys.stdin.buffer:
            try:
                file.write(without_paths(line.decode("utf-8", errors="replace"), ours))
            except OSError:  # a full disk loses a line; who writes must not be held up by it
                continue


if __name__ == "__main__":
    main()
