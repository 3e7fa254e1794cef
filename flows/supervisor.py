"""A few long processes kept running, and all of them ended together: what `make up` leaves behind.

Every process carries a mark in its environment, which its children inherit; so what is ours is found again, whoever
its parent is by now and whatever the clock says, and nobody else's process is ever touched.
Left out on purpose: logs that rotate, users, boot; a system's own service manager does these (`flows.up --unit`).
"""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from vlmr1.files import write_json

MARK = "VLMR1_UP"
POOL = "vlmr1"  # the work pool
KEEPER = "flows.up"  # what the process that keeps the others runs
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
    output: int | None = None  # descriptors; without them our own
    source: int | None = None
    again: Callable[[], None] | None = None  # called before each start but the first, which waits where it fails
    process: Any = None
    since: float = 0.0
    wait: float = 1.0
    due: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Start it where it does not run; the longer it keeps dying, the later."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due:
                self._start()
        elif self.process.poll() is not None:
            self.wait = 1.0 if now - self.since > STEADY else min(LONGEST, 2 * self.wait)
            tell(f"{self.name} ended with {self.process.returncode}; starting again in {self.wait:.0f} s")
            self.process, self.due = None, now + self.wait

    def _start(self) -> None:
        if self.again is not None and self.since:
            try:
                self.again()
            except RuntimeError as error:
                tell(f"{self.name} is not started again yet: {error}")
                self.due = time.monotonic() + 10 * LOOK
                return
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=self.source,
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,
        )
        self.since = time.monotonic()

    def end(self) -> None:
        """Ask it to end, and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def tell(said: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), said, flush=True)


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


def lives(process: psutil.Process) -> bool:
    """Whether a process runs: one that has ended may wait for its parent to notice."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def engines(mark: str) -> dict[str, psutil.Process]:
    """The living processes of Prefect's runs with the mark, by their run."""
    found = {}
    for process in ours(mark):
        with suppress(psutil.Error):
            if "prefect.engine" in process.cmdline():
                found[process.environ().get("PREFECT__FLOW_RUN_ID", "")] = process
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
    write_json(path, {"mark": mark, "pid": pid, **more})


def read_note(path: Path) -> dict[str, Any] | None:
    """What `note` wrote, if it did."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def keeper(noted: dict[str, Any]) -> psutil.Process | None:
    """The noted process, if it still is that one: a number may be another's by now."""
    with suppress(psutil.Error):  # gone, or somebody else's
        process = psutil.Process(noted["pid"])
        if lives(process) and process.environ().get(MARK) == noted["mark"] and KEEPER in process.cmdline():
            return process
    return None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One keeper at a time; the lock goes with its process. Raises RuntimeError where another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another `make up` keeps this project already, or is about to") from None
        yield
