"""Start a server, wait until it is healthy, stop it with all it started; one that breaks is reported once.

    with running(Serving(Path("models/grpo")), Path("work/serve/grpo.log")) as server:
        …  # server.url, e.g. http://127.0.0.1:8000/v1

A shell that waits beside it ends it where this process is killed outright and can end nothing more itself.
Left out on purpose: starting it again. Whoever needs it knows better whether that helps.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from vlmr1.serving.commands import KEY, SECRET, Serving, bracketed, command, container, environment
from vlmr1.serving.connections import once

LINES = 12  # of its log that a broken server is reported with
EVERY = 0.5  # seconds between two questions after its health
GRACE = 20.0  # seconds that it has to end by itself
EARLY = 8.0  # and one that is still starting, which owes nobody an answer
# Of a shell: once its input ends, which is when this process does, it ends the group $1, and the container $2 if any.
WATCH = f"""while read -r _; do :; done
kill -TERM "-$1" || exit 0
for _ in $(seq {GRACE:.0f}); do kill -0 "-$1" || break; sleep 1; done
kill -KILL "-$1"
[ -z "$2" ] || docker rm --force "$2"
"""
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
    serving: Serving,
    log: Path,
    patience: float = 1_800.0,
    more: Mapping[str, str] | None = None,
    waited: Callable[[float], object] = lambda seconds: None,
    stopping: Callable[[], object] = lambda: None,
) -> Iterator[Running]:
    """A healthy server, stopped when the block ends; `patience` in seconds, `more` of its environment.

    `waited` hears now and then for how many seconds it has not been healthy, `stopping` that it is to end.
    Raises ValueError for what is missing here, ConnectionError with the end of the log where it does not get healthy.
    """
    words = command(serving)
    key = {KEY: kept} if (kept := os.environ.get(SECRET)) else {}
    if serving.contained:
        _check_docker(serving)
    _check_port(serving)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        around = os.environ | environment(serving) | key | dict(more or {})
        around.pop("PYTHONPATH", None)  # of this environment, not of the server's
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=around, start_new_session=True)
    healthy = False
    with _watched(process, container(serving)):
        try:
            _wait(process, serving, log, patience, waited)
            healthy = True
            yield Running(f"{_address(serving)}/v1", process, log)
        finally:
            with suppress(OSError):  # a terminal that is gone
                stopping()
            stop(process, container(serving), healthy)


@contextmanager
def _watched(process: subprocess.Popen[bytes], container: str | None) -> Iterator[None]:
    """A shell in a group of its own ends the process and all it started where this one is killed in the block."""
    words = ["sh", "-c", WATCH, "sh", str(process.pid), container or ""]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True) as shell:
        try:
            yield
        finally:
            shell.kill()


def stop(process: subprocess.Popen[bytes], container: str | None = None, healthy: bool = True) -> None:
    """End a process and all it started: asked first, then made to, at once where Ctrl-C or a signal comes meanwhile.

    `container` is the one that the process is the client of, which does not end with its client. One that is not
    `healthy` yet is asked by SIGINT: vLLM does not listen to SIGTERM while it starts.
    """
    try:
        os.killpg(process.pid, signal.SIGTERM if healthy else signal.SIGINT)
        process.wait(GRACE if healthy else EARLY)
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


def _check_docker(serving: Serving) -> None:
    if shutil.which("docker") is None:
        raise ValueError(f"engine {serving.engine} runs in a container, and docker is not here; --print shows the line")
    try:
        asked = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=GRACE)
    except subprocess.TimeoutExpired:
        why = f"it says nothing in {GRACE:g} s"
    else:
        if asked.returncode == 0:
            return
        why = " ".join(asked.stderr.split())
    raise ValueError(
        f"engine {serving.engine} runs in a container, and docker's daemon does not answer; start it, or get the right"
        f" to ask it ({why})"
    )


def _check_port(serving: Serving) -> None:
    with socket.socket(socket.AF_INET6 if ":" in serving.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                said = f"--port {serving.port}: not free on {serving.host}; another program listens there, e.g. a"
                raise ValueError(f"{said} server started before: stop that, or name another port") from error
            said = f"--host {serving.host} --port {serving.port}: cannot be had here"
            raise ValueError(f"{said} ({error.strerror or error}); name another") from error


def _wait(
    process: subprocess.Popen[bytes],
    serving: Serving,
    log: Path,
    patience: float,
    waited: Callable[[float], object],
) -> None:
    begun = time.monotonic()
    while (seconds := time.monotonic() - begun) < patience:
        if (code := process.poll()) is not None:
            raise ConnectionError(f"{serving.engine} ended with {code} before it answered; {last_lines(log)}")
        try:
            if once("GET", f"{_address(serving)}/health", 5, own=True).is_success:
                return
        except httpx.RequestError:
            pass  # not yet
        waited(seconds)
        time.sleep(EVERY)
    raise ConnectionError(f"{serving.engine} is not healthy after {patience:g} s; {last_lines(log)}")
