"""Faults of the pipeline: stages killed, a disk that is full, a clock that is wrong, two pipelines at once.

One fault: a stage's outputs are taken away from a finished project, the stage is run and struck at a moment drawn by
the seed, and run again without the fault. Every tracked output must then be what an untouched `dvc repro` made, to the
byte.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fault_project import Bench, Stage, bench, everything, orphans
from tests.conftest import environment
from vlmr1.settings import read_yaml

__all__ = ["KINDS", "bench", "strike"]

HOUR = 3600.0
KINDS = (  # in turn; what costs least most often
    "stage killed",
    "disk full: files",
    "stage killed",
    "clock moved",
    "stage killed",
    "dvc repro killed",
    "stage killed",
    "two pipelines",
    "disk full: files",
    "stage under dvc killed",
    "disk full: tmpfs",
)
TRAININGS = ("warmup", "sft@samples", "sft@compute", "grpo")
SHORT = ("world", "convert", "report", "publish")  # that take a second or two
FULL = "no room is left to write to"


def strike(bench: Bench, kind: str, rng: random.Random) -> list[str]:
    """One fault of that kind; what is not as it should be afterwards, each in a sentence."""
    names = SHORT if kind == "two pipelines" else TRAININGS if kind == "disk full: tmpfs" else tuple(bench.stages)
    stage = bench.stages[rng.choice(names)]
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


def _killed(bench: Bench, stage: Stage, rng: random.Random, wrong: list[str], **more: Any) -> bool:
    """SIGKILL, and where it was too late for one the stage is begun anew and killed sooner."""
    wait = rng.random() * stage.seconds
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


def _wait_for_stage(process: subprocess.Popen[bytes], seconds: float = 60) -> list[psutil.Process]:
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
    if not bench.tmpfs:
        return _limited(bench, stage, rng, wrong)
    work = bench.project / "work"  # what lies there is hidden as long as the namespace lasts
    command = " ".join([sys.executable, *stage.command[1:]])
    script = f"mount -t tmpfs -o size={rng.randrange(20, 20_000)}k none {work} && {command}; echo ended $?;"
    script += f"mount -o remount,size=1g {work} && {command}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=bench.project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    first = done.stdout.partition("ended 1")[0]
    if FULL not in first or done.returncode != 0:
        wrong.append(f"without room: {done.stdout[-800:]}")
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
