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

import psutil
from prefect import get_run_logger
from prefect.concurrency.sync import concurrency

from flows.following import follow_training

TRAININGS = ("warmup", "sft", "grpo")  # stages that want a device for themselves
DEVICE = "VLMR1_DEVICE"  # names the device of this worker, whose limit `make up` has made
LEASE = 60  # seconds after which a slot is free whose holder was killed
AGAIN = "exited with 75"  # what DVC says of a stage that may be tried again
stopping = threading.Event()  # once set, no stage starts
_running: set[int] = set()  # DVC's processes


class StageFailed(RuntimeError):
    """A stage failed; the message ends in its own sentence."""


class StageFailedForNow(StageFailed):
    """A stage failed in a way that trying again may mend: store, network, memory."""


def run_by_dvc(name: str) -> tuple[list[str], int]:
    """Let DVC run a stage. Returns what was said, and DVC's exit code."""
    logger = get_run_logger()
    done = threading.Event()
    context = contextvars.copy_context()  # so that what the watcher shows belongs to this task run
    watcher = threading.Thread(target=context.run, args=(follow_training, name, done), name=f"follow-{name}")
    said: list[str] = []
    # The repository's lock is free while a command runs, so parallel stages work; without the flag they would fail.
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        _running.add(process.pid)
        if stopping.is_set():  # the call to stop came while it started
            stop()
        watcher.start()
        try:
            for line in _lines(process):
                said.append(line)
                logger.info(line)
        finally:
            done.set()
            watcher.join()
            _running.discard(process.pid)
    return said, process.returncode


def fault_of(name: str, said: list[str]) -> StageFailed:
    """What a failed stage is reported as."""
    dashed = name.replace("@", "-")
    reasons = [line for line in said if line.startswith(f"{dashed}: ")] or said[-1:]
    if stopping.is_set():
        return StageFailed(f"stage {name} was stopped")
    for_now = note_of(name).is_file() or any(AGAIN in line for line in said)
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
        while True:
            if stopping.is_set():
                raise StageFailed(f"stage {name} was stopped before it had its device")
            try:
                held.enter_context(
                    concurrency(limit_of(device), timeout_seconds=5, lease_duration=LEASE, strict=True)
                )
                break
            except TimeoutError:
                continue  # another training has it
        yield


def limit_of(device: str) -> str:
    """The name of the concurrency limit of a device."""
    return f"training-{re.sub(r'[^a-z0-9]+', '-', device.lower())}"


def stop() -> None:
    """Ask every running stage to end, and let none start. Returns at once."""
    stopping.set()
    for pid in list(_running):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            for child in psutil.Process(pid).children():
                # DVC runs a stage through a shell, which would end without waiting for it.
                shell = "-c" in child.cmdline()[1:3]
                for stage in (child.children() if shell else []) or [child]:
                    stage.send_signal(signal.SIGTERM)


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The process's output, line by line, without empty ones and without DVC's hints on what to type next."""
    assert process.stdout is not None
    hints = False
    for line in process.stdout:
        hints = hints or line.startswith(("To track the changes with git", "Use `dvc push`"))
        if line.strip() and not hints:
            yield line.rstrip()
