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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from vlmr1.serving.commands import KEY, Serving, bracketed, command, container, environment

LINES = 12  # of its log that a broken server is reported with
EVERY = 0.5  # seconds between two questions after its health
GRACE = 20.0  # seconds that it has to end by itself
NEVER_RAN = 125  # of docker's client, where it could make no container: one of that name is somebody else's


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
    key = {KEY: kept} if (kept := os.environ.get("VLMR1_SERVER_KEY")) else {}
    if serving.contained and shutil.which("docker") is None:
        raise ValueError(f"engine {serving.engine} runs in a container, and docker is not here; --print shows the line")
    _free(serving)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        around = os.environ | environment(serving) | key | dict(more or {})
        around.pop("PYTHONPATH", None)  # of this environment, not of the server's
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=around, start_new_session=True)
    try:
        _wait(process, serving, log, patience)
        yield Running(f"{_address(serving)}/v1", process, log)
    finally:
        stop(process, container(serving))


def stop(process: subprocess.Popen[bytes], container: str | None = None) -> None:
    """End a process and all it started: asked first, then made to, at once where Ctrl-C or a signal comes meanwhile.

    `container` is the one that the process is the client of, which does not end with its client.
    """
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass  # it is made to below
    except ProcessLookupError:
        process.wait()
    finally:
        with _undisturbed():
            _kill(process)
            if container is not None and process.returncode != NEVER_RAN:
                _remove(container)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what outlived it
    process.wait()


def _remove(container: str) -> None:
    """Raises ConnectionError where docker does not answer, so that somebody looks after the container."""
    words = ["docker", "rm", "--force", container]
    try:
        subprocess.run(words, capture_output=True, timeout=GRACE)  # one that has gone by itself is no fault
    except subprocess.TimeoutExpired as error:
        raise ConnectionError(f"docker does not answer; see that {container} ends: {' '.join(words)}") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that would end this process wait until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def last_lines(log: Path) -> str:
    """The end of a log, for a report."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
    return "\n  ".join([f"the end of {log}:", *lines]) if lines else f"{log} is empty"


def _address(serving: Serving) -> str:
    """Where it is asked from here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(serving.host, serving.host)
    return f"http://{bracketed(host)}:{serving.port}"


def _free(serving: Serving) -> None:
    with socket.socket(socket.AF_INET6 if ":" in serving.host else socket.AF_INET) as probe:
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
            if httpx.get(f"{_address(serving)}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not yet
        time.sleep(EVERY)
    raise ConnectionError(f"{serving.engine} is not healthy after {patience:g} s; {last_lines(log)}")
