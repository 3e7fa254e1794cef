"""Faults of the pipeline: stages killed, a disk that is full, a clock that is wrong, two pipelines at once.

One fault: a stage's outputs are taken away from a finished project, the stage is run and struck at a moment drawn by
the seed, and run again without the fault. Every tracked output must then be what an untouched `dvc repro` made, to the
byte. Stages are run by `dvc repro` where the kind says so, else as forks of a process that has imported what they need.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.clock import site
from benchmarks.forks import STAGES, Forks
from tests.conftest import environment, make_project, run
from vlmr1.files import sha256
from vlmr1.settings import read_yaml
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
HOUR = 3600.0
KINDS = (
    "stage killed",
    "dvc repro killed",
    "stage under dvc killed",
    "clock moved",
    "disk full: files",
    "disk full: tmpfs",
    "two pipelines",
)
TRAININGS = ("warmup", "sft@samples", "sft@compute", "grpo")
SHORT = ("world", "convert", "report", "publish")  # that take a second or two
FULL = "no room is left to write to"


@dataclass
class Stage:
    """A stage as dvc.lock has it."""

    name: str
    command: list[str]
    outs: list[str]
    seconds: float = 0.0

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
    hits: dict[str, int] = field(default_factory=dict)

    def without(self, stage: Stage) -> None:
        """Take away what the stage leaves, and what it has begun."""
        for path in [*stage.outs, stage.work, *(["releases"] if stage.name == "publish" else [])]:
            at = self.project / path
            shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)

    def restore(self) -> None:
        """The project as it was, for the next fault."""
        shutil.rmtree(self.project)
        shutil.copytree(self.pristine, self.project, symlinks=True)

    def start(self, stage: Stage, **more):
        """Start a stage by a fork."""
        return self.forks.start(stage.command[2], *stage.command[3:], cwd=self.project, PYTHONPATH=".", **more)

    def dvc(self, stage: Stage, said: Path, **more: str) -> subprocess.Popen:
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
    """A project made and run by `dvc repro` (or one that was), and each stage once by a fork to learn its length."""
    if project is None:
        project = make_project(folder / "made")
        run(["vlmr1", "apply", "recipes/smoke.yaml", *(word for one in SMALLEST for word in ("-S", one))], project)
        run(["dvc", "repro"], project)
    pristine, working = folder / "pristine", folder / "project"
    for copy in (pristine, working):
        shutil.copytree(project, copy, symlinks=True)
    locked = read_yaml(pristine / "dvc.lock")["stages"]
    stages = {
        name: Stage(name, one["cmd"].split(), [out["path"] for out in one["outs"]]) for name, one in locked.items()
    }
    site(folder / "site")
    with Forks(STAGES, folder / "said") as forks:
        found = Bench(working, pristine, forks, stages, everything(pristine), can_mount())
        for stage in stages.values():
            found.without(stage)
            start, wrong = time.monotonic(), list[str]()
            found.again(stage, False, wrong)
            stage.seconds = time.monotonic() - start
            if wrong or everything(working) != found.whole:
                raise AssertionError(f"{stage.name} by a fork is not what dvc repro made: {wrong}")
        yield found


def can_mount() -> bool:
    """Whether this user may mount a file system of memory in a namespace of its own."""
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def strike(bench: Bench, kind: str, rng: random.Random) -> list[str]:
    """One fault of that kind; what is not as it should be afterwards, each in a sentence."""
    names = SHORT if kind == "two pipelines" else TRAININGS if kind == "disk full: tmpfs" else tuple(bench.stages)
    stage = bench.stages[rng.choice(names)]
    bench.hits[stage.name] = bench.hits.get(stage.name, 0) + 1
    wrong: list[str] = []
    bench.without(stage)
    by_dvc = DO[kind](bench, stage, rng, wrong)
    wrong += orphans(bench.project)
    wrong += half(bench, stage)
    bench.again(stage, by_dvc, wrong)
    wrong += orphans(bench.project)
    there = everything(bench.project)
    if there != bench.whole:
        differ = [key for key in sorted(there.keys() | bench.whole) if there.get(key) != bench.whole.get(key)]
        wrong.append(f"{stage.name}: {len(differ)} files differ: {differ[:4]}")
    if (bench.project / stage.work).exists():
        wrong.append(f"{stage.work} was left")
    if by_dvc and read_yaml(bench.project / "dvc.lock") != read_yaml(bench.pristine / "dvc.lock"):
        wrong.append("dvc.lock differs")
    if wrong:
        bench.restore()
    return [f"{stage.name}: {word}" for word in wrong]


def half(bench: Bench, stage: Stage) -> list[str]:
    """Outputs that stand at their place and are not whole."""
    there = everything(bench.project)
    odd = []
    for out in stage.outs:
        ours = {key: h for key, h in there.items() if key == out or key.startswith(f"{out}/")}
        whole = {key: h for key, h in bench.whole.items() if key == out or key.startswith(f"{out}/")}
        if ours and ours != whole:
            odd.append(f"{out} was there half")
    return odd


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


def _moment(stage: Stage, rng: random.Random) -> float:
    return rng.random() * stage.seconds


def _killed(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str], **more) -> bool:
    """SIGKILL, and where it was too late for one the stage is begun anew and killed sooner."""
    wait = _moment(stage, rng)
    for _ in range(6):
        running = bench.start(stage, **more)
        time.sleep(wait)
        late = not running.alive()
        running.kill()
        running.wait()
        if not late:
            return False
        bench.without(stage)
        wait /= 2
    wrong.append("it was never hit")
    return False


def _dvc_killed(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str]) -> bool:
    """DVC and its stage, as when the power goes."""
    process = bench.dvc(stage, bench.forks.folder / "killed.said")
    _wait_for_stage(process)
    time.sleep(rng.random() * (stage.seconds + 5))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def _under_dvc(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str]) -> bool:
    """The stage alone: DVC must say that it failed."""
    said = bench.forks.folder / "killed.said"
    process = bench.dvc(stage, said)
    children = _wait_for_stage(process)
    time.sleep(rng.random() * 4)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    if (
        process.wait(120) == 0
        and "failed to reproduce" not in said.read_text()
        and not (bench.project / stage.outs[0]).exists()
    ):
        wrong.append("DVC took a killed stage for done")
    return True


def _wait_for_stage(process: subprocess.Popen, seconds: float = 60) -> list[psutil.Process]:
    """The processes that DVC has started, once it has."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        with suppress(psutil.NoSuchProcess):
            if found := psutil.Process(process.pid).children(recursive=True):
                return found
        time.sleep(0.05)
    return []


def _clock(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str]) -> bool:
    """Killed with a clock that is hours or days wrong, and run again with the right one, or run to its end with it."""
    clock = rng.choice([-1, 1]) * rng.choice([HOUR, 30 * HOUR, 24 * 365 * HOUR])
    if rng.random() < 0.5:
        return _killed(bench, stage, rng, wrong, clock=clock)
    running = bench.start(stage, clock=clock)
    if running.wait() != 0:
        wrong.append(f"with a clock wrong by {clock:.0f} s: {running.text()[-800:]}")
    return False


def _limited(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str]) -> bool:
    """No file may grow beyond some bytes (RLIMIT_FSIZE): a write fails amid it, as on a disk without room."""
    biggest = max((p.stat().st_size for out in stage.outs for p in _files(bench.pristine / out)), default=1000)
    running = bench.start(stage, most=rng.randrange(1, biggest))
    code, text = running.wait(), running.text()
    if code == 0 or FULL not in text:
        wrong.append(f"without room it ended with {code}: {text[-800:]}")
    return False


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def _full(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str]) -> bool:
    """The work folder on a disk of memory that is too small; then there is room, and the same stage goes on."""
    work = bench.project / stage.work
    work.mkdir(parents=True)
    command = " ".join([sys.executable, *stage.command[1:]])
    script = f"mount -t tmpfs -o size={rng.randrange(20, 20_000)}k none {work} && {command}; echo ended $?;"
    script += f"mount -o remount,size=1g {work} && {command}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=bench.project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    first = done.stdout.partition("ended 1")[0]
    if FULL not in first or done.returncode not in (0, 1):
        wrong.append(f"without room: {done.stdout[-800:]}")
    shutil.rmtree(work, ignore_errors=True)
    return False


def _two(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str]) -> bool:
    """Two `dvc repro` of one stage: the second waits, or is refused in a sentence."""
    said = [bench.forks.folder / f"two-{i}.said" for i in range(2)]
    both = []
    for path in said:
        both.append(bench.dvc(stage, path))
        time.sleep(rng.random() * 6)
    codes = [process.wait(300) for process in both]
    texts = [path.read_text() for path in said]
    for code, text in zip(codes, texts, strict=True):
        if code and not any(word in text for word in ("lock", "busy", "blocked")):
            wrong.append(f"of two one ended with {code}: {text[-800:]}")
    if 0 not in codes:
        wrong.append(f"of two neither ended well: {texts[0][-300:]} {texts[1][-300:]}")
    return True


DO: dict[str, Callable[[Bench, Stage, random.Random, list[str]], bool]] = {
    "stage killed": _killed,
    "dvc repro killed": _dvc_killed,
    "stage under dvc killed": _under_dvc,
    "clock moved": _clock,
    "disk full: files": _limited,
    "disk full: tmpfs": _full,
    "two pipelines": _two,
}
