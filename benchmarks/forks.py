"""Processes forked from one that has imported everything, so that a process to be killed costs no imports.

`Forks` keeps that one; each job is a module run as `python -m` would, in a folder, with an environment, a clock and a
limit on the size of files of its own. It is a process like any other: it can be killed, and is waited for.
Left out on purpose: exit codes of killed processes (None), since nobody waits for them but the kernel.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.clock import move_clock

STORE = ("tests.releases", "vlmr1.release.pull", "vlmr1.release.s3")
STAGES = ("torch", "transformers", "matplotlib.pyplot", "great_expectations", "vlmr1.adapters", "vlmr1.grpo.trainer")


@dataclass
class Running:
    """A job under way."""

    process: psutil.Process | None  # None where it ended before it was looked at
    said: Path

    def alive(self) -> bool:
        """Whether it still runs."""
        with suppress(psutil.NoSuchProcess):
            return (
                self.process is not None and self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
            )
        return False

    def kill(self) -> None:
        """SIGKILL for it and all it started, as when the power goes."""
        with suppress(psutil.NoSuchProcess):
            below = self.process.children(recursive=True) if self.process is not None else []
            for process in filter(None, [self.process, *below]):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def wait(self, seconds: float = 600) -> int | None:
        """Its exit code once it has ended, None where it was killed. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"still running after {seconds:.0f} s: {self.text()[-2000:]}")
            time.sleep(0.005)
        code = self.said.with_suffix(".code")
        return int(code.read_text()) if code.is_file() else None

    def text(self) -> str:
        return self.said.read_text(encoding="utf-8", errors="replace")


@dataclass
class Forks:
    """The process that has imported `preload`, for as long as a `with` block runs."""

    preload: Sequence[str]
    folder: Path  # for what jobs say
    started: int = 0
    parent: Any = field(default=None, repr=False)

    def __enter__(self) -> Forks:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.forks", *self.preload]
        self.parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.parent.stdout.readline()  # it has imported everything
        return self

    def __exit__(self, *_: object) -> None:
        self.parent.stdin.close()
        self.parent.wait()

    def start(
        self,
        module: str,
        *argv: str,
        cwd: Path | None = None,
        clock: float = 0.0,
        most: int | None = None,
        **environment: str,
    ) -> Running:
        """Start `python -m module argv`; `clock` seconds wrong, its files at most `most` bytes."""
        self.started += 1
        said = self.folder / f"{self.started:05}.said"
        job = {"module": module, "argv": argv, "cwd": str(cwd or Path.cwd()), "clock": clock, "most": most}
        self.parent.stdin.write(json.dumps({**job, "environment": environment, "said": str(said)}) + "\n")
        self.parent.stdin.flush()
        number = int(self.parent.stdout.readline())
        try:
            return Running(psutil.Process(number), said)
        except psutil.NoSuchProcess:
            return Running(None, said)


def serve(preload: Sequence[str]) -> None:
    """The process that forks: a job a line, answered by the number of the new process."""
    for name in preload:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel clears away what has ended
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    replies.write("ready\n")
    for line in sys.stdin:
        job = json.loads(line)
        Path(job["said"]).touch()
        number = os.fork()
        if number == 0:
            _be(job)
        replies.write(f"{number}\n")


def _be(job: dict[str, Any]) -> None:
    """Become the job; never returns."""
    code, said = 1, Path(job["said"])
    with said.open("w", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.stdout, sys.stderr = out, out
        try:
            os.setsid()
            os.environ.update(job["environment"])
            os.chdir(job["cwd"])
            move_clock(job["clock"])
            if job["most"] is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (job["most"], resource.RLIM_INFINITY))
            sys.argv = [job["module"], *job["argv"]]
            runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as ended:
            if isinstance(ended.code, str):
                print(ended.code)
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
    if job["most"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said.with_suffix(".code").write_text(str(code))
    os._exit(code & 255)


if __name__ == "__main__":
    serve(sys.argv[1:])
