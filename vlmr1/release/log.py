"""What happened to a name's versions, in order: NAME/log/NUMBER-MOMENT.json, an entry a file.

Entries say what was published, promoted, refused, rolled back, and which label removed. Each has a key of its own that
nobody else can write and is never changed, so none is lost on any server and a label's history can always be told. Two
who write at a time may take one number: the moment orders them then, as well as clocks agree. An entry that names what
it takes the label from is void where another was first.
Left out on purpose: taking an entry back. A new one says what holds from then on.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, ValidationError

from vlmr1.release.secrets import refuse_secrets
from vlmr1.release.showing import clean_text
from vlmr1.release.store import Store, within
from vlmr1.settings.base import Block
from vlmr1.settings.releases import LABEL, VERSION, Version

_ENTRY = re.compile(r"[0-9]{8}-[0-9a-f]{24}\.json")
_MOST = 64 << 10  # bytes of an entry
ANY = "any"  # of `expected`: whatever the label stands for

Event = Literal["published", "promoted", "refused", "rolled back", "removed", "made again"]


class Entry(Block):
    """One entry of the log."""

    event: Event
    version: Version
    label: str | None = Field(pattern=f"^{LABEL}$")
    expected: str | None = Field(pattern=f"^({ANY}|{VERSION})$")  # what the label stood for; null: for nothing
    reason: str | None
    at: str  # UTC, for people; the entry's number is what orders


def note(
    store: Store,
    name: str,
    event: Event,
    version: str,
    label: str | None,
    reason: str | None,
    expected: str | None = ANY,
) -> None:
    """Add an entry to the log, after all that is there, unless it would change nothing."""
    refuse_secrets(reason or "", "the reason")
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = Entry(event=event, version=version, label=label, expected=expected, reason=reason, at=at)
    data = within(
        (json.dumps(entry.model_dump(), ensure_ascii=False) + "\n").encode(), _MOST, f"{name}/log: this entry"
    )
    number = max((int(key[:8]) for key in _keys(store, name)), default=0) + 1
    if _counts(entry, read_log(store, name)):
        store.put_new(data, f"{name}/log/{number:08}-{time.time_ns():016x}{secrets.token_hex(4)}.json")


def read_log(store: Store, name: str) -> list[Entry]:
    """What counts of the log, oldest first: an entry that says again what holds already, and a void one, do not.

    Raises ValueError for an entry that is none.
    """
    with ThreadPoolExecutor(8) as pool:
        entries = pool.map(lambda key: _entry(store, f"{name}/log/{key}"), _keys(store, name))
        log: list[Entry] = []
        for entry in entries:
            if _counts(entry, log):
                log.append(entry)
        return log


def _counts(entry: Entry, log: list[Entry]) -> bool:
    """Whether an entry changes anything after those before it."""
    of_it = [other for other in log if other.version == entry.version]
    match entry.event:
        case "published":
            return all(other.event != "published" for other in of_it)
        case "made again":
            return not any(other.event == entry.event and other.reason == entry.reason for other in of_it)
        case "refused":
            decided = [other.event for other in of_it if other.event in ("refused", "promoted", "rolled back")]
            return decided[-1:] != ["refused"]
        case "promoted":
            now = standing(log, entry.label)
            return now != entry.version and entry.expected in (ANY, now)
    return True


def _keys(store: Store, name: str) -> list[str]:
    return [child for child in store.children(f"{name}/log") if _ENTRY.fullmatch(child)]


def _entry(store: Store, key: str) -> Entry:
    try:
        return Entry.model_validate_json(store.read(key, _MOST))
    except ValidationError as error:
        where = clean_text(".".join(map(str, error.errors()[0]["loc"]))[:200])
        raise ValueError(f"{key}: not an entry of a release log: {where} {error.errors()[0]['msg']}") from None


def versions(log: list[Entry]) -> list[str]:
    """Versions by their first publication."""
    return list(dict.fromkeys(entry.version for entry in log if entry.event == "published"))


def stack_of(log: list[Entry], label: str | None) -> list[str]:
    """What a label stood for, what it stands for now last; what was rolled back is gone from it."""
    stack: list[str] = []
    for entry in log:
        if entry.label == label and entry.event == "promoted":
            stack.append(entry.version)
        elif entry.label == label and entry.event == "rolled back":
            while stack and stack[-1] != entry.version:
                stack.pop()
            stack = stack or [entry.version]
        elif entry.label == label and entry.event == "removed":
            stack = []
    return stack


def standing(log: list[Entry], label: str | None) -> str | None:
    """The version that a label stands for after these entries."""
    stack = stack_of(log, label)
    return stack[-1] if stack else None


def held(log: list[Entry]) -> dict[str, str]:
    """The version of every label that stands for one."""
    stacks = {entry.label: stack_of(log, entry.label) for entry in log if entry.label is not None}
    return {label: stack[-1] for label, stack in stacks.items() if stack}


def refusal_of(log: list[Entry], version: str) -> str | None:
    """Why a version is refused, or was rolled back: what was decided of it last counts."""
    found = None
    for at, entry in enumerate(log):
        if entry.version == version and entry.event in ("promoted", "rolled back"):
            found = None
        elif entry.version == version and entry.event == "refused":
            found = entry.reason or "no reason was given"
        elif entry.event == "rolled back" and standing(log[:at], entry.label) == version:
            found = f"rolled back: {entry.reason or 'no reason was given'}"
    return found
