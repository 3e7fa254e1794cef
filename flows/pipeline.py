"""The pipeline flow: dvc.yaml's graph, each stage a Prefect task. Run: `make ui`, or `python -m flows.pipeline`.

The graph is read through DVC's own API, so flow and `dvc repro` cannot drift. A stage that DVC finds unchanged, after
upstream stages that were unchanged too, is not started at all and shows as *Unchanged*.
Left out on purpose: schedules, and what comes after the graph (`flows.retrain`).
"""

from __future__ import annotations

import argparse
import sys
import threading
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State
from prefect.tasks import exponential_backoff

from flows import running
from flows.artifacts import AFTER
from flows.graph import read_graph
from flows.running import StageFailedForNow
from flows.showing import failure_shown, unfailing

RETRIES, DELAY = 3, 10  # of a failure that trying again may mend; seconds before the first, twice as many each time


@task(cache_policy=NO_CACHE)
def run_stage(name: str, changed: bool, upstream: list[bool], slots: threading.Semaphore) -> bool | State[bool]:
    """Run one stage where anything changed. True when it ran; a state named Unchanged where it did not.

    `upstream` is what the stages it waits for returned; `slots` bounds how many run side by side. Raises StageFailed
    with the stage's own sentence where it failed.
    """
    if not changed and not any(upstream):
        _show(name)  # what it left, all the same
        return Completed(name="Unchanged", message="inputs, command and outputs are as dvc.lock says", data=False)
    with slots, running.device_for(name):
        if running.stopping.is_set():
            raise running.StageFailed(f"stage {name} was not started: the run is being stopped")
        running.note_of(name).unlink(missing_ok=True)
        said, code = running.run_by_dvc(name)
    if code == 0 or name == "validate":  # what validation refused matters most when it stops
        _show(name)
    if code:
        raise running.fault_of(name, said)
    if any("didn't change, skipping" in line for line in said):
        return Completed(name="Unchanged", message="DVC skipped it", data=False)
    return True


def _show(name: str) -> None:
    with unfailing(f"the page lacks what {name} made"):
        AFTER.get(name, lambda: None)()


def may_mend(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether a failed stage is tried again."""
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, StageFailedForNow) and not running.stopping.is_set()


@flow(name="pipeline", flow_run_name="pipeline")
def pipeline(retries: int = RETRIES, retry_delay_seconds: int = DELAY, parallel: int = 2) -> None:
    """Run the whole graph. Stages that do not wait for each other run side by side, at most `parallel` at once.

    A stage whose failure may mend itself is tried `retries` times more, a training from its last checkpoint; any other
    failure fails the run. What does not wait for a failed stage still runs.
    """
    with failure_shown():
        _run_graph(retries, retry_delay_seconds, parallel)


def _run_graph(retries: int, retry_delay_seconds: int, parallel: int) -> None:
    waits, changed = read_graph()
    slots = threading.BoundedSemaphore(parallel)
    futures: dict[str, Any] = {}
    ended = False
    try:
        for name, upstream in waits.items():
            named = run_stage.with_options(
                name=name,
                task_run_name=name,
                retries=retries,
                retry_delay_seconds=exponential_backoff(retry_delay_seconds),
                retry_condition_fn=may_mend,
            )
            futures[name] = named.submit(name, name in changed, [futures[u] for u in upstream], slots)
        for future in futures.values():
            future.wait()
        ended = True
    finally:
        if not ended:  # cancelled, terminated or interrupted
            get_run_logger().info("stopping: a training ends after its step, with a checkpoint")
            running.stop()
    states = {name: future.state for name, future in futures.items()}
    failed = [name for name, state in states.items() if state.is_final() and not state.is_completed()]
    held = [name for name, state in states.items() if not state.is_final()]
    if failed or held:
        reasons = "\n".join(f"- {states[name].result(raise_on_failure=False)}" for name in failed)
        raise RuntimeError(
            f"failed: {', '.join(failed)}; not run because of it: {', '.join(held) or 'nothing'}\n\n{reasons}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--retries", type=int, default=RETRIES, help="how often a stage is tried again whose failure may mend itself"
    )
    parser.add_argument("--delay", type=int, default=DELAY, help="seconds before the first of them")
    parser.add_argument("--parallel", type=int, default=2, help="stages at once; 1 on a machine with one accelerator")
    chosen = parser.parse_args()
    try:
        pipeline(retries=chosen.retries, retry_delay_seconds=chosen.delay, parallel=chosen.parallel)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"pipeline {error}")
