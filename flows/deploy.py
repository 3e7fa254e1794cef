"""What `make up` makes on its server: the work pool, the device's limit, the deployments, the notifications.

Each is made once and brought up to date after that; nothing else on the server is touched.
    PREFECT_API_URL=… python -m flows.deploy     on a server of your own
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter, WorkPoolFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, State

from flows.automations import make_automations
from flows.running import DEVICE, limit_of

POOL = "vlmr1"
UNDER_WAY = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
CUT_OFF = "the machine, or what `make up` started, went down; the next run goes on from the last checkpoint"


def make_limit(device: str, trainings: int = 1) -> None:
    """The limit of a device: so many trainings at a time. One that is there stays as somebody may have set it."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit_of(device))
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=limit_of(device), limit=trainings)
            client.create_global_concurrency_limit(wanted)


def make_pool() -> None:
    """A work pool whose runs are processes of the worker's machine, one at a time: they share `.retrain`."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            _prefect("work-pool", "create", POOL, "--type", "process")
            _prefect("work-pool", "set-concurrency-limit", POOL, "1")


def settle_cut_off() -> int:
    """Give every run of the pool that nobody runs any more its last state; how many. For before a worker starts."""
    with get_client(sync_client=True) as client:
        pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"state": UNDER_WAY}), work_pool_filter=pool
        )
        found = [run for run in runs if run.deployment_id is not None]
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


def deploy(device: str) -> str:
    """Make all of it; what is worth telling."""
    make_pool()
    make_limit(device)
    _prefect("deploy", "--all")
    return make_automations()


def _prefect(*arguments: str) -> None:
    """Prefect's own command. Raises RuntimeError with its last words."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    variables = os.environ | {"VLMR1_HOME": str(Path.cwd())}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables)
    if done.returncode:
        raise RuntimeError(f"prefect {' '.join(arguments[:2])} failed: {' '.join(done.stdout.split())[-400:]}")


if __name__ == "__main__":
    if "PREFECT_API_URL" not in os.environ:
        sys.exit("flows.deploy: no server to deploy to; set PREFECT_API_URL, e.g. http://127.0.0.1:4200/api")
    try:
        if "--settle" in sys.argv[1:] and (cut_off := settle_cut_off()):
            print(
                f"{cut_off} runs had been cut off and are marked so; a run started again goes on from its checkpoints"
            )
        print(deploy(os.environ.get(DEVICE, "local")))
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
