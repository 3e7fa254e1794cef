"""A few long processes kept running, and all of them ended together: what `make up` leaves behind.

Every process carries a mark in its environment, which its children inherit; so what is ours is found again, whoever
its parent is by now, and nobody else's process is ever touched.
Left out on purpose: logs that rotate, users, boot; a system's own service manager does these (`flows.up --unit`).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from vlmr1.files import write_json

MARK = "VLMR1_UP"
LOOK = 0.5  # seconds between two looks
LONGEST = 60.0  # seconds between two starts of what keeps dying
STEADY = 120.0  # seconds after which a process counts as well
PATIENCE = 120.0  # seconds for a training to end its step


@dataclass
class Kept:
    """A process that is started again when it ends."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: Any = None
    since: float = 0.0
    wait: float = 1.0
    due: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Start it where it does not run; the longer it keeps dying, the later."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due:
                with self.log.open("a") as log:
                    self.process = subprocess.Popen(
                        self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                    )
                self.since = now
        elif self.process.poll() is not None:
            self.wait = 1.0 if now - self.since > STEADY else min(LONGEST, 2 * self.wait)
            said = f"{self.name} ended with {self.process.returncode}; starting again in {self.wait:.0f} s"
            print(time.strftime("%Y-%m-%d %H:%M:%S"), said, flush=True)
            self.process, self.due = None, now + self.wait

    def end(self) -> None:
        """Ask it to end, and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def keep(kept: Sequence[Kept], before: Callable[[Kept], None], asked: Callable[[], bool]) -> None:
    """Keep the processes running until `asked` says to stop; `before` is called before each one's first start."""
    for one in kept:
        if asked():
            return
        before(one)
        one.look()
    while not asked():
        time.sleep(LOOK)
        for one in kept:
            one.look()


def ours(mark: str) -> list[psutil.Process]:
    """Every living process with the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # somebody else's, or just gone
            continue
    return found


def tops(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those of them whose parent is none of them."""
    pids = {process.pid for process in processes}
    found = []
    for process in processes:
        try:
            if process.ppid() not in pids:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def end_all(processes: Sequence[psutil.Process], patience: float) -> None:
    """Ask processes to end, and make them when they have had the time."""
    for process in processes:
        _send(process, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, patience)
    for process in left:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(left, 10)


def _send(process: psutil.Process, what: signal.Signals) -> None:
    try:
        process.send_signal(what)  # psutil sees to it that it is still the same process
    except psutil.NoSuchProcess:
        return


def note(path: Path, mark: str, pid: int, **more: Any) -> None:
    """Write down who keeps what runs."""
    write_json(path, {"mark": mark, "pid": pid, "started": psutil.Process(pid).create_time(), **more})


def read_note(path: Path) -> dict[str, Any] | None:
    """What `note` wrote, if it did."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def keeper(noted: dict[str, Any]) -> psutil.Process | None:
    """The noted process, if it still is that one: a number may be another's by now."""
    try:
        process = psutil.Process(noted["pid"])
        same = abs(process.create_time() - noted["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except psutil.NoSuchProcess:
        return None
