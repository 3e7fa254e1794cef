"""What others are told of, as Prefect events: new data, an alarm of a training, a refused candidate.

Automations answer to them (`flows.automations`, prefect.yaml). Whoever brings new data says so:
    python -m flows.notify data NAME
Left out on purpose: sending messages, which the server does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from prefect.events import emit_event

UPDATED, REFUSED, ALARM = "vlmr1.data.updated", "vlmr1.gate.refused", "vlmr1.alarm"


def data_updated(name: str) -> None:
    """New data of that name is there: what the deployment `on-new-data` waits for."""
    emit_event(UPDATED, resource={"prefect.resource.id": f"vlmr1.data.{name}", "prefect.resource.name": name})


def candidate_refused(release: str, says: str) -> None:
    """The gate refused a release, NAME@VERSION."""
    resource = {"prefect.resource.id": f"vlmr1.release.{release}", "prefect.resource.name": release}
    emit_event(REFUSED, resource=resource, payload={"says": says})


def alarm_raised(stage: str, alarm: Mapping[str, Any]) -> None:
    """A training's reward-hacking watch has something to say."""
    resource = {"prefect.resource.id": f"vlmr1.training.{stage}", "prefect.resource.name": stage}
    says = f"step {alarm['step']}: {alarm['message']}"
    emit_event(ALARM, resource=resource, payload={"says": says, "kind": alarm["kind"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["data"])
    parser.add_argument("name", help="of the data that is new, in your own words")
    chosen = parser.parse_args()
    if "PREFECT_API_URL" not in os.environ:
        sys.exit("flows.notify: no server to tell; set PREFECT_API_URL, e.g. http://127.0.0.1:4200/api")
    data_updated(chosen.name)
    print(f"told: new data {chosen.name}")


if __name__ == "__main__":
    main()
