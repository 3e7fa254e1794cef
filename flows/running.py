"""Running one stage of the graph by DVC: its output in the run's log, its training followed, its failure told.

A stage is stopped by SIGTERM to itself alone: a training then ends after its step with a checkpoint, and DVC, which
runs in a session of its own, tells how it ended. Where the run is killed before that, both still end by themselves.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from prefect import get_run_logger
from prefect.concurrency.sync import concurrency

from flows.following import follow_training
from flows.showing import unfailing
from vlmr1.scrubbed import scrubbed

TRAININGS = ("warmup", "sft", "grpo", "promoted")  # what wants a device for itself; the last is the gate's asking
DEVICE = "VLMR1_DEVICE"  # names the device of this worker, whose limit `make up` has made
LEASE = 120  # seconds after which a slot is free whose holder was killed
AGAIN = ("exited with 75", "is being blocked by")  # what DVC says where trying again may do: another has its outputs
KILLED = re.compile(r"exited with (-9|137)\b|Signal 9 \(SIGKILL\)")  # by DVC, and by torchrun
stopping = threading.Event()  # once set, no stage starts
shared: set[int] = set()  # descriptors of locks that what is started holds as well, should this run be killed
_running: set[int] = set()  # DVC's processes
_device = threading.Lock()


class StageFailed(RuntimeError):
    """A stage failed; the message ends in its own sentence."""


class StageFailedForNow(StageFailed):
    """A stage failed in a way that trying again may mend: store, network, memory."""


def run_by_dvc(name: str) -> tuple[list[str], int]:
    """Let DVC run a stage. Returns what was said, and DVC's exit code."""
    done = threading.Event()
    context = contextvars.copy_context()  # so that what the watcher shows belongs to this task run
    watcher = threading.Thread(target=context.run, args=(follow_training, name, done), name=f"follow-{name}")
    watcher.start()
    try:
        # The repository's lock is free while a command runs, so parallel stages work; without the flag they would fail.
        return run_logged(["dvc", "--wait-for-lock", "repro", "--single-item", name])
    finally:
        done.set()
        watcher.join()


def run_logged(command: list[str]) -> tuple[list[str], int]:
    """Run a command with its output in the run's log. Returns what was said, and its exit code."""
    logger, said = get_run_logger(), []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=tuple(shared),
    ) as process:
        _running.add(process.pid)
        try:
            if stopping.is_set():  # the call to stop came while it started
                stop()
            for line in map(scrubbed, _lines(process)):
                said.append(line)
                logger.info(line)
        except BaseException:  # the run ends while it reads, in the main thread: what it waits for ends too
            stop()
            raise
        finally:
            process.wait()
            _running.discard(process.pid)
    return said, process.returncode


def fault_of(name: str, said: list[str]) -> StageFailed:
    """What a failed stage is reported as."""
    dashed = name.replace("@", "-")
    reasons = [line for line in said if line.startswith(f"{dashed}: ")] or said[-1:]
    if stopping.is_set():
        return StageFailed(f"stage {name} was stopped")
    if any(KILLED.search(line) for line in said):
        why = "it was killed, as a machine short of memory does; lower compute.prompts_per_device if that is so"
        return StageFailedForNow(f"stage {name} failed: {why}")
    for_now = note_of(name).is_file() or any(sign in line for line in said for sign in AGAIN)
    return (StageFailedForNow if for_now else StageFailed)(f"stage {name} failed: {' '.join(reasons[-1:])}")


def note_of(name: str) -> Path:
    """Where a stage notes that it may be tried again; torchrun, where it ran, keeps its exit code to itself."""
    return Path("work/records") / f"{name.replace('@', '-')}-transient.txt"


@contextlib.contextmanager
def device_for(name: str) -> Iterator[None]:
    """Hold the device while a training runs, where a worker names one. Raises RuntimeError where it has no limit."""
    device = os.environ.get(DEVICE)
    if device is None or name.partition("@")[0] not in TRAININGS:
        yield
        return
    with contextlib.ExitStack() as held:
        while not _device.acquire(timeout=1):  # this run's own trainings wait here, which costs the server nothing
            _go_on(name)
        held.callback(_device.release)
        slot = _slot(name, device)
        try:
            yield
        finally:
            with unfailing(f"the server is away; {limit_of(device)} is free again when {LEASE} s have passed"):
                slot.__exit__(None, None, None)


def _slot(name: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """The device's limit, once it is held. A server that is away for a while is waited for."""
    while True:
        _go_on(name)
        slot = concurrency(
            limit_of(device),
            timeout_seconds=LEASE,
            lease_duration=LEASE,
            strict=True,
            raise_on_lease_renewal_failure=False,  # a busy server is no reason to end a training
        )
        try:
            slot.__enter__()
            return slot
        except TimeoutError:
            get_run_logger().info(f"{name}: waiting for {limit_of(device)}, which another run holds")
        except httpx.TransportError as error:
            get_run_logger().info(f"{name}: waiting for the server: {error}")
            stopping.wait(1)


def _go_on(name: str) -> None:
    if stopping.is_set():
        raise StageFailed(f"stage {name} was stopped before it had its device")


def limit_of(device: str) -> str:
    """The name of the concurrency limit of a device."""
    return f"training-{re.sub(r'[^a-z0-9]+', '-', device.lower())}"


def stop() -> None:
    """Ask every running stage to end, and let none start. Returns at once."""
    stopping.set()
    for pid in list(_running):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            for stage in _stages_of(psutil.Process(pid)):
                stage.send_signal(signal.SIGTERM)


def _stages_of(process: psutil.Process) -> list[psutil.Process]:
    """The stage that DVC runs, through a shell that would end without waiting for it; another command is its own."""
    if not any(Path(word).name == "dvc" for word in process.cmdline()[:2]):
        return [process]
    found: list[psutil.Process] = []
    for child in process.children():
        through_shell = "-c" in child.cmdline()[1:3]
        found += (child.children() if through_shell else []) or [child]
    return found


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The process's output, line by line, without empty ones and without DVC's hints on what to type next."""
    assert process.stdout is not None
    hints = False
    for line in process.stdout:
        hints = hints or line.startswith(("To track the changes with git", "Use `dvc push`"))
        if line.strip() and not hints:
            yield line.rstrip()
