"""The pipeline flow: dvc.yaml's graph, each stage a Prefect task. Run: `make ui`, or `python -m flows.pipeline`.

The graph is read through DVC's own API, so flow and `dvc repro` cannot drift. A stage that DVC finds unchanged, after
upstream stages that were unchanged too, is not started at all and shows as *Unchanged*.
Left out on purpose: schedules and retraining.
"""

from __future__ import annotations

import argparse
import contextvars
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows.artifacts import AFTER, follow_training


def read_graph() -> tuple[dict[str, list[str]], set[str]]:
    """Stages of this folder with the stages they wait for, in running order, and those that DVC says are changed.

    Raises ValueError where this folder is no DVC repository with a pipeline.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph = repo.index.graph
            order = [s for s in networkx.dfs_postorder_nodes(graph) if s.cmd]
            waits = {s.addressing: sorted(d.addressing for d in graph.successors(s) if d.cmd) for s in order}
            return waits, set(repo.status()) & set(waits)
    except DvcException as error:
        raise ValueError(f"{Path.cwd()}: DVC cannot read the pipeline: {error}") from error


@task(cache_policy=NO_CACHE)
def run_stage(name: str, changed: bool, upstream: list[bool], slots: threading.Semaphore) -> bool | State[bool]:
    """Run one stage where anything changed. True when it ran; a state named Unchanged where it did not.

    `upstream` is what the stages it waits for returned; `slots` bounds how many run side by side. Raises RuntimeError
    with the stage's own sentence where it failed.
    """
    if not changed and not any(upstream):
        if name in AFTER:  # what it left is shown all the same
            AFTER[name]()
        return Completed(name="Unchanged", message="inputs, command and outputs are as dvc.lock says", data=False)
    with slots:
        said, code = _repro(name)
    if name in AFTER and (code == 0 or name == "validate"):  # what validation refused matters most when it stops
        AFTER[name]()
    if code:
        reasons = [line for line in said if line.startswith(f"{name.replace('@', '-')}: ")] or said[-1:]
        raise RuntimeError(f"stage {name} failed: {' '.join(reasons[-1:])}")
    if any("didn't change, skipping" in line for line in said):
        return Completed(name="Unchanged", message="DVC skipped it", data=False)
    return True


def _repro(name: str) -> tuple[list[str], int]:
    """Let DVC run a stage, its output in the run's log and its training followed. Returns what it said and its code."""
    logger = get_run_logger()
    done = threading.Event()
    context = contextvars.copy_context()  # so that what the watcher shows belongs to this task run
    watcher = threading.Thread(target=context.run, args=(follow_training, name, done), name=f"follow-{name}")
    said: list[str] = []
    # The repository's lock is free while a command runs, so parallel stages work; without the flag they would fail.
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watcher.start()
        try:
            for line in _lines(process):
                said.append(line)
                logger.info(line)
        finally:
            done.set()
            watcher.join()
            if process.poll() is None:  # cancelled: DVC alone would leave its stage running
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.terminate()
                process.terminate()
    return said, process.returncode


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The process's output, line by line, without empty ones and without DVC's hints on what to type next."""
    assert process.stdout is not None
    hints = False
    for line in process.stdout:
        hints = hints or line.startswith(("To track the changes with git", "Use `dvc push`"))
        if line.strip() and not hints:
            yield line.rstrip()


@flow(name="pipeline", flow_run_name="pipeline")
def pipeline(retries: int = 0, retry_delay_seconds: int = 5, parallel: int = 2) -> None:
    """Run the whole graph. Stages that do not wait for each other run side by side, at most `parallel` at once.

    A failed stage is tried `retries` times more, then fails the run; what does not wait for it still runs.
    """
    waits, changed = read_graph()
    slots = threading.BoundedSemaphore(parallel)
    futures: dict[str, Any] = {}
    for name, upstream in waits.items():
        named = run_stage.with_options(
            name=name, task_run_name=name, retries=retries, retry_delay_seconds=retry_delay_seconds
        )
        futures[name] = named.submit(name, name in changed, [futures[u] for u in upstream], slots)
    for future in futures.values():
        future.wait()
    states = {name: future.state for name, future in futures.items()}
    failed = [name for name, state in states.items() if state.is_final() and not state.is_completed()]
    held = [name for name, state in states.items() if not state.is_final()]
    if failed or held:
        raise RuntimeError(f"failed: {', '.join(failed)}; not run because of it: {', '.join(held) or 'nothing'}")


def _stop(*_: Any) -> None:
    """On SIGTERM: end the stages that run, which leave their checkpoints, then this process."""
    for child in psutil.Process().children(recursive=True):
        child.terminate()
    sys.exit(143)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retries", type=int, default=0, help="how often a failed stage is tried again")
    parser.add_argument("--parallel", type=int, default=2, help="stages at once; 1 on a machine with one accelerator")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        pipeline(retries=chosen.retries, parallel=chosen.parallel)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"pipeline {error}")
