"""What people see while a server starts and stops, on standard error: a line that moves on a terminal, else plain ones.

A server is silent outside its log, and takes minutes to load a model; so how long it has been, and the log's last line.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SECONDS = 15.0  # between two plain lines
TAIL = 4_096  # bytes of the log that are looked at
CLEAR = "\r\033[K"  # the terminal's line


class Starting:
    """Tells of one server, whose log is `log`."""

    def __init__(self, what: str, log: Path) -> None:
        self.what, self.log, self.moves = what, log, sys.stderr.isatty()
        self.said: float | None = None  # when the last plain line was, in seconds from the start

    def waited(self, seconds: float) -> None:
        """It has not been healthy for so long."""
        width = shutil.get_terminal_size((150, 24)).columns - 1
        line = f"{seconds:.0f} s: {self._last()}"[:width]
        if self.said is None:
            self.said = seconds
            self._say(f"starting {self.what}, which takes minutes; its log is {self.log}, Ctrl-C stops it")
        elif self.moves:
            print(f"{CLEAR}{line}", end="", file=sys.stderr, flush=True)
        elif seconds >= self.said + SECONDS:
            self.said = seconds
            self._say(line)

    def healthy(self) -> None:
        """It answers: the line that moved goes."""
        if self.moves:
            print(CLEAR, end="", file=sys.stderr, flush=True)

    def stopping(self) -> None:
        """It is being stopped, which takes seconds."""
        self.healthy()
        self._say(f"stopping {self.what} …")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def _last(self) -> str:
        """The log's last line, of what can be shown."""
        if not self.log.is_file():
            return "its log was removed"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")
        line = next((one for one in reversed(lines) if one.strip()), "its log is empty")
        return "".join(letter for letter in line.strip() if letter.isprintable())
