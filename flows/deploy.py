"""What `make up` makes on a server: the work pool, the device's limit, the deployments of prefect.yaml, automations.

Each is made once and brought up to date after that; nothing else on the server is touched.
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectNotFound

from flows.running import limit_of

POOL = "vlmr1"


def make_limit(device: str, trainings: int = 1) -> None:
    """The limit of a device: so many trainings at a time. One that is there stays as somebody may have set it."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit_of(device))
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=limit_of(device), limit=trainings)
            client.create_global_concurrency_limit(wanted)
