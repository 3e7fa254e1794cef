"""What others are told of, as Prefect events: new data, an alarm of a training, a refused candidate.

Automations answer to them (`flows.automations`, prefect.yaml). Whoever brings new data says so:
    python -m flows.notify data NAME     # a source of params.yaml, or what DVC tracks: train, data/mine
Left out on purpose: sending messages, which the server does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from flows.graph import data_stages
from vlmr1.settings import load_params

UPDATED, REFUSED, ALARM = "vlmr1.data.updated", "vlmr1.gate.refused", "vlmr1.alarm"


def data_updated(name: str) -> None:
    """New data of that name is there: what `on-new-data` waits for. Raises ValueError for a name that is nobody's."""
    if name not in (known := known_data()):
        raise ValueError(f"{name}: no source of params.yaml and nothing that DVC tracks; there is: {', '.join(known)}")
    emit_event(UPDATED, resource={"prefect.resource.id": f"vlmr1.data.{name}", "prefect.resource.name": name})


def known_data() -> list[str]:
    """The sources of this project's params.yaml, then what DVC tracks besides the graph, as paths."""
    sources = load_params().data.sources
    tracked = [stage.relpath.removesuffix(".dvc") for stage in data_stages()]
    return [*sources, *sorted(tracked)]


def candidate_refused(release: str, says: str) -> None:
    """The gate refused a release, NAME@VERSION."""
    resource = {"prefect.resource.id": f"vlmr1.release.{release}", "prefect.resource.name": release}
    emit_event(REFUSED, resource=resource, payload={"says": says, "run": _page()})


def alarm_raised(stage: str, alarm: Mapping[str, Any]) -> None:
    """A training's reward-hacking watch has something to say."""
    resource = {"prefect.resource.id": f"vlmr1.training.{stage}", "prefect.resource.name": stage}
    says = f"step {alarm['step']}: {alarm['message']}"
    emit_event(ALARM, resource=resource, payload={"says": says, "kind": alarm["kind"], "run": _page()})


def _page() -> str:
    """The address of the present run's page, for who is told of it."""
    return (flow_run.id and url_for("flow-run", obj_id=flow_run.id)) or ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["data"])
    parser.add_argument("name", help="a source of params.yaml, or what DVC tracks, e.g. data/mine")
    chosen = parser.parse_args()
    if "PREFECT_API_URL" not in os.environ:
        sys.exit("flows.notify: no server to tell; set PREFECT_API_URL, e.g. http://127.0.0.1:4200/api")
    try:
        data_updated(chosen.name)
    except ValueError as error:
        sys.exit(f"flows.notify: {error}")
    print(f"told: new data {chosen.name}")


if __name__ == "__main__":
    main()
