"""The pipeline flow: dvc.yaml's graph, each stage a Prefect task. Run: `make ui`, or `python -m flows.pipeline`.

The graph is read through DVC's own API, so flow and `dvc repro` cannot drift. A stage that DVC finds unchanged, after
upstream stages that were unchanged too, is not started at all and shows as *Unchanged*.
Left out on purpose: schedules and retraining.
"""

from __future__ import annotations

import argparse
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.states import Completed, State

from flows.artifacts import AFTER, follow_training


def read_graph(folder: Path) -> tuple[dict[str, list[str]], set[str]]:
    """Stages with the stages they wait for, in running order, and those that DVC says have something to do.

    Raises ValueError where `folder` is no DVC repository with a pipeline.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph
            order = [s for s in networkx.dfs_postorder_nodes(graph) if s.cmd]
            waits = {s.addressing: sorted(d.addressing for d in graph.successors(s) if d.cmd) for s in order}
            return waits, set(repo.status()) & set(waits)
    except DvcException as error:
        raise ValueError(f"{folder}: DVC cannot read the pipeline: {error}") from error


@task(task_run_name="{name}")
def run_stage(name: str, changed: bool, upstream: list[bool], folder: str) -> bool | State[bool]:
    """Run one stage where anything changed. True when it ran; a state named Unchanged where it did not."""
    logger = get_run_logger()
    if not changed and not any(upstream):
        return Completed(name="Unchanged", message="inputs, command and outputs are as dvc.lock says", data=False)
    done = threading.Event()
    watcher = threading.Thread(target=follow_training, args=(name, Path(folder), done), name=f"follow-{name}")
    said: list[str] = []
    # The repository's lock is free while a command runs, so parallel stages work; without the flag they would fail.
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", name]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watcher.start()
        try:
            for line in _lines(process):
                said.append(line)
                logger.info(line)
        finally:
            done.set()
            watcher.join()
            if process.poll() is None:
                process.terminate()
    if process.returncode:
        reason = next(
            (line for line in reversed(said) if line.startswith(name.replace("@", "-"))), said[-1] if said else ""
        )
        raise RuntimeError(f"stage {name} failed: {reason}")
    if any("didn't change, skipping" in line for line in said):
        return Completed(name="Unchanged", message="DVC skipped it", data=False)
    if name in AFTER:
        AFTER[name](Path(folder))
    return True


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The process's output, line by line, without empty ones."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()


@flow(name="pipeline", flow_run_name="pipeline")
def pipeline(folder: str = ".", retries: int = 0, retry_delay_seconds: int = 5) -> Any:
    """Run the whole graph. Stages that do not wait for each other run side by side; a failed one fails the run."""
    waits, changed = read_graph(Path(folder))
    configured = run_stage.with_options(retries=retries, retry_delay_seconds=retry_delay_seconds)
    futures: dict[str, Any] = {}
    for name, upstream in waits.items():
        futures[name] = configured.submit(name, name in changed, [futures[u] for u in upstream], folder)
    return [future.wait() or future.state for future in futures.values()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retries", type=int, default=0, help="how often a failed stage is tried again")
    pipeline(retries=parser.parse_args().retries)
