"""Runs that nobody runs any more are given their last state, or the pool would wait for them for ever.

A worker tells how its runs end. Where it was killed before them, nobody does, so what keeps the worker sees to it: of
all runs before a worker starts, and afterwards of those that outlived the one before.
    python -m flows.settle [RUN ...]     these alone, or every one of the pool whose process is gone
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter, WorkPoolFilter
from prefect.states import Cancelled, Crashed, State

from flows.supervisor import MARK, POOL, engines

UNDER_WAY = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
CUT_OFF = "it was killed, or the machine or what `make up` started went down; the next run goes on from its checkpoint"


def settle_cut_off(among: Collection[str] = ()) -> int:
    """Give every run of the pool, or those of them that are named, its last state where its process is gone; how many.

    Without names it is for before a worker starts, which may be about to start a run's process.
    """
    living = engines(os.environ[MARK]) if MARK in os.environ else {}
    with get_client(sync_client=True) as client:
        pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"state": UNDER_WAY}), work_pool_filter=pool
        )
        found = [run for run in runs if run.deployment_id is not None and str(run.id) not in living]
        found = [run for run in found if not among or str(run.id) in among]
        for run in found:
            _settle(client, run.id)
            cancelled = run.state is not None and run.state.is_cancelling()
            state: State[Any] = Cancelled(message=CUT_OFF) if cancelled else Crashed(message=CUT_OFF)
            client.set_flow_run_state(run.id, state, force=True)
        return len(found)


def _settle(client: SyncPrefectClient, run: Any) -> None:
    """The tasks of a run, and of the runs within it."""
    within = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run]}, "state": UNDER_WAY})
    for inner in client.read_flow_runs(flow_run_filter=within):
        _settle(client, inner.id)
        client.set_flow_run_state(inner.id, Crashed(message=CUT_OFF), force=True)
    left = TaskRunFilter.model_validate({"flow_run_id": {"any_": [run]}, "state": UNDER_WAY})
    for one in client.read_task_runs(task_run_filter=left):
        client.set_task_run_state(one.id, Crashed(message=CUT_OFF), force=True)


if __name__ == "__main__":
    print(f"{settle_cut_off(sys.argv[1:])} runs had been cut off and are marked so")
