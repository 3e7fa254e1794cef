"""Notifications by the Prefect server: a run failed, the gate refused a candidate, a training raised an alarm.

They go to the URL in VLMR1_NOTIFY_URL as a POST of {"text", "subject", "body"}, which chat tools' incoming webhooks
take; text and body end in the address of the run's page. The server keeps the URL as a secret. Made once, brought up
to date after that; without the variable nothing is made, and what was made before stays.
Left out on purpose: other channels, which Prefect's UI can add to the same events.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.types import SecretDict

from flows.notify import ALARM, REFUSED

URL = "VLMR1_NOTIFY_URL"
BLOCK = "vlmr1-notify"
EVERY = {"prefect.resource.id": "vlmr1.*"}
# Name: what is listened for, whose, and what is said of it. A run of a deployment tells for its subflows too.
WANTED: dict[str, tuple[set[str], Any, Any, str, str]] = {
    "vlmr1 run failed": (
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        {"prefect.resource.id": "prefect.flow-run.*"},
        {"prefect.resource.role": "deployment"},
        "{{ flow_run.name }} {{ flow_run.state.name | lower }}",
        "{{ flow_run.state.message }} {{ flow_run | ui_url }}",
    ),
    "vlmr1 candidate refused": (
        {REFUSED},
        EVERY,
        {},
        "{{ event.resource['prefect.resource.name'] }} was refused",
        "{{ event.payload.says }} {{ event.payload.run }}",
    ),
    "vlmr1 alarm": (
        {ALARM},
        EVERY,
        {},
        "{{ event.resource['prefect.resource.name'] }}: signs of reward hacking",
        "{{ event.payload.says }} {{ event.payload.run }}",
    ),
}


def make_automations() -> str:
    """Make what is missing and bring the rest up to date; what was done. Raises ValueError for a bad URL."""
    url = os.environ.get(URL)
    if url is None:
        return f"notifications: {URL} is not set, so nobody new is told"
    if urlparse(url).scheme not in ("http", "https"):  # the value may hold a key, and is not repeated
        raise ValueError(f"{URL}: a webhook's http:// or https:// address is wanted")
    block = CustomWebhookNotificationBlock(
        name="vlmr1",
        url="{{address}}",
        headers=None,
        cookies=None,
        json_data={"text": "{{subject}}\n{{body}}", "subject": "{{subject}}", "body": "{{body}}"},
        secrets=SecretDict({"address": url}),
    )
    document: Any = block.save(BLOCK, overwrite=True)
    with get_client(sync_client=True) as client:
        for name, (expect, match, related, subject, body) in WANTED.items():
            wanted = AutomationCore(
                name=name,
                description=f"Tells {BLOCK}; made by `make up`",
                trigger=EventTrigger(
                    expect=expect,
                    match=match,
                    match_related=related,
                    posture=Posture.Reactive,
                    threshold=1,
                    within=timedelta(0),
                ),
                actions=[SendNotification(block_document_id=document, subject=subject, body=body)],
            )
            there = client.read_automations_by_name(name)
            if there:
                client.update_automation(there[0].id, wanted)
            else:
                client.create_automation(wanted)
    return "notifications: failures, refused candidates and alarms are told"
