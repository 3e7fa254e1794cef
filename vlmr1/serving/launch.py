"""Start a server, wait until it is healthy, stop it with all it started; one that breaks is reported once.

    with running(Serving(Path("models/grpo")), Path("work/serve/grpo.log")) as server:
        …  # server.url, e.g. http://127.0.0.1:8000/v1

Left out on purpose: starting it again. Whoever needs it knows better whether that helps.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from vlmr1.serving.commands import Serving, command, environment

LINES = 12  # of its log that a broken server is reported with
EVERY = 0.5  # seconds between two questions after its health
GRACE = 20.0  # seconds that it has to end by itself


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str  # with /v1
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Wait until it ends by itself, which is a fault. Raises ConnectionError with the end of its log."""
        code = self.process.wait()
        raise ConnectionError(f"the server at {self.url} ended with {code}; {last_lines(self.log)}")


@contextmanager
def running(
    serving: Serving, log: Path, patience: float = 1_800.0, more: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A healthy server, stopped when the block ends; `patience` in seconds, `more` of its environment.

    Raises ValueError for what is missing here, ConnectionError with the end of the log where it does not get healthy.
    """
    words = command(serving)
    if serving.contained and shutil.which("docker") is None:
        raise ValueError(f"engine {serving.engine} runs in a container, and docker is not here; --print shows the line")
    _free(serving)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        kept = os.environ | environment(serving) | dict(more or {})
        kept.pop("PYTHONPATH", None)  # of this environment, not of the server's
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=kept, start_new_session=True)
    try:
        _wait(process, serving, log, patience)
        yield Running(f"http://{_reached(serving)}:{serving.port}/v1", process, log)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started: asked first, then made to."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass  # it is made to below
    except ProcessLookupError:
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # also what outlived it
    except ProcessLookupError:
        return
    finally:
        process.wait()


def last_lines(log: Path) -> str:
    """The end of a log, for a report."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
    return "\n  ".join([f"the end of {log}:", *lines]) if lines else f"{log} is empty"


def _reached(serving: Serving) -> str:
    """The host under which it is asked from here."""
    return "127.0.0.1" if serving.host == "0.0.0.0" else serving.host


def _free(serving: Serving) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            raise ValueError(f"--port {serving.port}: not free on {serving.host} ({error}); name another") from error


def _wait(process: subprocess.Popen[bytes], serving: Serving, log: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if (code := process.poll()) is not None:
            raise ConnectionError(f"{serving.engine} ended with {code} before it answered; {last_lines(log)}")
        try:
            if httpx.get(f"http://{_reached(serving)}:{serving.port}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not yet
        time.sleep(EVERY)
    raise ConnectionError(f"{serving.engine} is not healthy after {patience:g} s; {last_lines(log)}")
