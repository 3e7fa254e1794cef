"""The finished project that faults of the pipeline are done to: its stages, its hashes, what works in it.

A stage's outputs are taken away and made again, by `dvc repro` or as a fork of a process that has imported what stages
need.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.forks import STAGES, Forks, Running
from tests.conftest import environment, make_project, run
from vlmr1.files import sha256
from vlmr1.settings import read_yaml
from vlmr1.stages import read_json
from vlmr1.work import fingerprint_of

TRACKED = (
    "data/world",
    "data/converted",
    "models",
    "logs",
    "predictions",
    "reports/validation",
    "reports/run",
    "metrics",
)
SMALLEST = (
    "warmup.training.steps=8",
    "warmup.training.save_steps=2",
    "warmup.training.warmup_steps=2",
    "warmup.training.batch=8",
    "grpo.steps=6",
    "grpo.save_steps=2",
    "grpo.prompts_per_step=4",
    "sft.save_steps=1",
)


@dataclass
class Stage:
    """A stage as dvc.lock has it."""

    name: str
    command: list[str]
    outs: list[str]
    seconds: float  # that it takes

    @property
    def work(self) -> str:
        return f"work/{self.name.replace('@', '-')}"


@dataclass
class Bench:
    """A finished project, a copy of it that nothing is done to, and what its stages are."""

    project: Path
    pristine: Path
    forks: Forks
    stages: dict[str, Stage]
    whole: dict[str, str]
    tmpfs: bool

    def without(self, stage: Stage) -> None:
        """Take away what the stage leaves, and what it has begun."""
        for path in [*stage.outs, stage.work, *(["releases"] if stage.name == "publish" else [])]:
            at = self.project / path
            shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)

    def restore(self) -> None:
        """The project as it was, for the next fault."""
        shutil.rmtree(self.project)
        shutil.copytree(self.pristine, self.project, symlinks=True)

    def start(self, stage: Stage, **more: Any) -> Running:
        """Start a stage by a fork."""
        return self.forks.start(stage.command[2], *stage.command[3:], cwd=self.project, PYTHONPATH=".", **more)

    def dvc(self, stage: Stage, said: Path, **more: str) -> subprocess.Popen[bytes]:
        """Start a stage by DVC, which is not to take it from what it remembers of earlier runs."""
        command = ["dvc", "repro", "--no-run-cache", "--single-item", stage.name]
        with said.open("w") as out:
            return subprocess.Popen(
                command, cwd=self.project, env=environment(**more), stdout=out, stderr=out, start_new_session=True
            )

    def again(self, stage: Stage, by_dvc: bool, wrong: list[str]) -> None:
        """Run it without a fault; it must end well."""
        if by_dvc:
            said = self.forks.folder / "again.said"
            code, text = self.dvc(stage, said).wait(600), said.read_text()
        else:
            running = self.start(stage)
            code, text = running.wait(), running.text()
        if code != 0:
            wrong.append(f"{stage.name} without a fault ended with {code}: {text[-800:]}")


def everything(project: Path) -> dict[str, str]:
    """sha256 of every tracked output."""
    found = (
        {"receipt": sha256(project / "reports/published.json")}
        if (project / "reports/published.json").is_file()
        else {}
    )
    return found | {f"{folder}/{key}": h for folder in TRACKED for key, h in fingerprint_of(project / folder).items()}


@contextmanager
def bench(folder: Path, project: Path | None = None) -> Iterator[Bench]:
    """A project made and run by `dvc repro` (or one that was)."""
    if project is None:
        project = make_project(folder / "made")
        run(["vlmr1", "apply", "recipes/smoke.yaml", *(word for one in SMALLEST for word in ("-S", one))], project)
        run(["dvc", "repro"], project)
    pristine, working = folder / "pristine", folder / "project"
    for copy in (pristine, working):
        shutil.copytree(project, copy, symlinks=True)
    locked = read_yaml(pristine / "dvc.lock")["stages"]
    stages = {}
    for name, one in locked.items():
        took = read_json(pristine / f"work/records/{name.replace('@', '-')}.json")["wall_seconds"]
        stages[name] = Stage(name, one["cmd"].split(), [out["path"] for out in one["outs"]], took)
    with Forks(STAGES, folder / "said") as forks:
        yield Bench(working, pristine, forks, stages, everything(pristine), can_mount())


def can_mount() -> bool:
    """Whether this user may mount a file system of memory in a namespace of its own."""
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def orphans(folder: Path, patience: float = 5.0) -> list[str]:
    """Processes that still work in a folder."""
    until = time.monotonic() + patience
    while left := [p for p in psutil.process_iter() if _within(p, folder)]:
        if time.monotonic() > until:
            words = [" ".join(p.cmdline())[:80] for p in left if p.is_running()]
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return [f"left running: {words}"]
        time.sleep(0.1)
    return []


def _within(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False
