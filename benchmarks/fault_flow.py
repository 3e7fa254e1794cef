"""Faults of what `make up` keeps running: worker, server, run, stage and keeper killed amid a retraining.

A real Prefect server and worker, the deployment `manual`, and a graph that is cheap: a training of a few seconds that
resumes, and a release. One fault: what the graph makes is taken away, with DVC's memory of it, so that a retraining
really trains; it is started, and processes are killed at a moment drawn by the seed, half of the time while it trains.
What is kept must come up again and the run must come to an end, whichever; then a retraining without a fault must end
as the first one did, with the same files in `.retrain` and in the store, and nothing may run beside what is kept.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import psutil

from benchmarks.fault_store import content_of, visible
from flows.supervisor import ours, read_note
from tests.conftest import ROOT, free_port, make_project, run
from tests.test_retrain import MAKE
from tests.test_up import start, state
from vlmr1.release.store import open_store
from vlmr1.work import fingerprint_of

STEPS = 30
TRAIN = f"""
STEPS = {STEPS}
import json, shutil, time
from pathlib import Path
from tests.releases import make_checkpoint
from vlmr1.files import whole_folder, write_json
work, done = Path("work/grpo"), 0
if (work / "state.json").is_file():
    done = json.loads((work / "state.json").read_text())
    print("grpo: continuing after step", done)
work.mkdir(parents=True, exist_ok=True)
for step in range(done + 1, STEPS + 1):
    time.sleep(0.1)
    with open("work/steps", "a") as file:
        print(step, file=file)
    write_json(work / "state.json", step)
with whole_folder(Path("models/grpo")) as folder:
    make_checkpoint(folder / "made")
shutil.rmtree(work)
"""
GRAPH = """
stages:
  grpo: {cmd: python train.py, deps: [data/right, train.py], outs: [models/grpo]}
  made:
    cmd: python make.py
    deps: [data/right, make.py, models/grpo]
    params: [publish]
    outs: [predictions, reports/published.json]
    metrics: [metrics/made.json: {cache: false}]
"""
KINDS = (
    "worker killed",
    "server killed",
    "run killed",
    "stage under a flow killed",
    "keeper killed",
    "worker and run killed",
)
SIGNS = {"run": "prefect.engine", "stage": "train.py"}
FINAL = {"Completed", "Passed", "Failed", "Crashed", "Cancelled"}
PATIENCE = 300.0


@dataclass
class Bench:
    """A project with everything up, and what a retraining leaves in it."""

    project: Path
    port: int
    whole: dict[str, str]
    seconds: float = 0.0

    def call(self, *options: str) -> str:
        variables = {"PREFECT_HOME": str(self.project / ".prefect"), "PYTHONPATH": f"{self.project}:{ROOT}"}
        return run([sys.executable, "-m", "flows.up", "--port", str(self.port), *options], self.project, **variables)

    def begin(self) -> str:
        """A retraining, once the server takes it; its id."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return start(self.port, "manual", force=True)
            except (URLError, ConnectionError, TimeoutError):
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    def end(self, run_id: str) -> str:
        """The state that a run comes to. Raises TimeoutError."""
        until, said = time.monotonic() + PATIENCE, "not asked"
        while time.monotonic() < until:
            with suppress(URLError, ConnectionError, TimeoutError):
                said = state(self.port, run_id)
                if said in FINAL:
                    return said
            time.sleep(0.5)
        raise TimeoutError(f"the run is {said} after {PATIENCE:.0f} s")

    def under_way(self, run_id: str) -> bool:
        with suppress(URLError, ConnectionError, TimeoutError):
            return state(self.port, run_id) not in FINAL
        return True

    def left(self) -> dict[str, str]:
        """What retrainings left: outputs of the clone, and the store but for times."""
        clone = self.project / ".retrain"
        made = {
            f"{name}/{key}": h for name in ("models", "predictions") for key, h in fingerprint_of(clone / name).items()
        }
        return made | content_of(str(self.project / "releases"))

    def anew(self) -> None:
        """Take away what the graph made, and DVC's memory of having run it: else nothing would be trained."""
        clone = self.project / ".retrain"
        for name in ("models", "predictions", "metrics", "reports", "work/grpo"):
            shutil.rmtree(clone / name, ignore_errors=True)
        for runs in (self.project / ".dvc/cache").rglob("runs"):
            shutil.rmtree(runs)
        for name in ("dvc.lock", "work/steps"):
            (clone / name).unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """The steps that were trained since."""
        path = self.project / ".retrain/work/steps"
        return [int(line) for line in path.read_text().split()] if path.is_file() else []

    def kept(self) -> list[psutil.Process]:
        """The keeper, the server and the worker with what they have started by themselves."""
        noted = read_note(self.project / ".prefect/up.json")
        keeper = psutil.Process(noted["pid"])
        return [keeper, *keeper.children()]

    def others(self) -> list[psutil.Process]:
        """What runs beside them: a run, DVC, a stage."""
        noted = read_note(self.project / ".prefect/up.json")
        kept = {process.pid for process in self.kept()}
        return [process for process in ours(noted["mark"]) if process.pid not in kept and not _tracker(process)]


def _tracker(process: psutil.Process) -> bool:
    """Whether it is what Python starts for itself beside a process of its own."""
    with suppress(psutil.NoSuchProcess):
        return "resource_tracker" in " ".join(process.cmdline())
    return True


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """A project of its own, everything up, and one retraining that nothing strikes."""
    project = make_project(folder / "project", recipe=None)
    (project / "dvc.yaml").write_text(GRAPH)
    (project / "train.py").write_text(TRAIN)
    (project / "make.py").write_text(MAKE)
    for name in ("data", "predictions", "models", "reports"):  # else git would track what is in an output
        (project / name / ".gitignore").unlink(missing_ok=True)
    (project / "data/right").write_text("70")
    with (project / ".gitignore").open("a") as file:
        file.write("/models/\n/data/converted/\n/predictions/\n/reports/\n")
    git = ["git", "-c", "commit.gpgsign=false"]
    run([*git, "config", "user.name", "t"], project)
    run([*git, "config", "user.email", "t@localhost"], project)
    run([*git, "add", "-A", "--force", "data/right", "make.py", "train.py", "dvc.yaml", ".gitignore"], project)
    run([*git, "commit", "-q", "-a", "-m", "cheap"], project)
    found = Bench(project, free_port(), {})
    found.call()
    try:
        begun = time.monotonic()
        ended = found.end(found.begin())
        if ended != "Passed":
            log = (project / ".prefect/up.log").read_text()
            raise AssertionError(f"a retraining without a fault ended as {ended}: {log[-2000:]}")
        found.seconds, found.whole = time.monotonic() - begun, found.left()
        yield found
    finally:
        found.call("--down")


def strike(bench: Bench, kind: str, rng: random.Random) -> list[str]:
    """One fault of that kind; what is not as it should be afterwards, each in a sentence."""
    wrong: list[str] = []
    cut = _hit(bench, kind, rng)
    if cut is None:
        return ["it was never hit"]
    if kind == "keeper killed":
        bench.call()
    try:
        bench.end(cut)
    except TimeoutError as error:
        wrong.append(str(error))
    wrong += visible(open_store(str(bench.project / "releases")))
    ended = bench.end(bench.begin())
    if ended != "Passed":
        wrong.append(f"the retraining afterwards ended as {ended}")
    there = bench.left()
    differ = [key for key in sorted(there.keys() | bench.whole) if there.get(key) != bench.whole.get(key)]
    wrong += [f"files differ: {differ[:4]}"] if differ else []
    if (steps := bench.steps()) != sorted(steps) or set(steps) != set(range(1, STEPS + 1)):  # one may be done twice
        wrong.append(f"the training did not go on from where it was: {steps}")
    return wrong + _orphans(bench)


def _hit(bench: Bench, kind: str, rng: random.Random) -> str | None:
    """Start a retraining and kill; the retraining's id. What ended too soon is begun anew, and hit sooner."""
    words = kind.removesuffix(" killed").removesuffix(" under a flow").split(" and ")
    within = 3.0 if "stage" in words or rng.random() < 0.5 else bench.seconds * 0.7
    for _ in range(4):
        bench.anew()
        cut = bench.begin()
        if within <= 3.0:
            _of_run(bench, SIGNS["stage"])  # from the moment on that it trains
        elif "run" in words:
            _of_run(bench, SIGNS["run"])
        time.sleep(rng.random() * within)
        targets = [_target(bench, word) for word in words]
        if bench.under_way(cut) and all(target is not None and target.is_running() for target in targets):
            for target in targets:
                assert target is not None
                target.kill()
            return cut
        bench.end(cut)
        within /= 2
    return None


def _target(bench: Bench, word: str) -> psutil.Process | None:
    """What is to be killed: the keeper, the server or the worker that it keeps, the run, its training."""
    if word in SIGNS:
        return _of_run(bench, SIGNS[word], 1)
    keeper, *kept = bench.kept()
    return keeper if word == "keeper" else next((process for process in kept if word in process.cmdline()), None)


def _of_run(bench: Bench, sign: str, seconds: float = 120) -> psutil.Process | None:
    """A process of the run, once there is one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for process in bench.others():
            with suppress(psutil.NoSuchProcess):
                if any(sign in word for word in process.cmdline()[:3]):
                    return process
        time.sleep(0.1)
    return None


def _orphans(bench: Bench) -> list[str]:
    until = time.monotonic() + 30
    while left := bench.others():
        if time.monotonic() > until:
            return [f"left running: {[' '.join(p.cmdline())[:80] for p in left if p.is_running()]}"]
        time.sleep(0.5)
    return []
