"""What `make up` makes on its server: the work pool, the device's limit, the deployments, the notifications.

Each is made once and brought up to date after that; nothing else on the server is touched.
    PREFECT_API_URL=… python -m flows.deploy     on a server of your own
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from flows.automations import make_automations
from flows.running import DEVICE, limit_of
from flows.settle import settle_cut_off
from flows.supervisor import POOL
from vlmr1.scrubbed import scrubbed


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
        if client.read_work_pool(POOL).concurrency_limit is None:  # also where we were killed before it was set
            client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=1))


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
        raise RuntimeError(
            f"prefect {' '.join(arguments[:2])} failed: {scrubbed(' '.join(done.stdout.split()))[-400:]}"
        )


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
        sys.exit(scrubbed(str(error)))
