"""Which versions of a name there are, in what order they came, and what each label (`prod`) stands for now.

Beside its versions a name has a log, NAME/log/00000001.json and so on: what was published, promoted, refused and
rolled back. An entry is written once and never changed, so two who write at a time take two numbers, and the history
of a label can always be told. A version counts only where its manifest is.
Left out on purpose: deleting or renaming a version.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from vlmr1.release.manifest import MANIFEST, MOST_BYTES, check_manifest
from vlmr1.release.store import Store
from vlmr1.settings.base import Block

NAME = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
VERSION = r"[0-9a-f]{12}"
LABEL = r"[a-z](?:[a-z0-9-]*[a-z0-9])?"
_WANTED = re.compile(rf"({NAME})(?:@({VERSION}|latest|v[1-9][0-9]{{0,7}}(?:\.0\.0)?)|#({LABEL}))")
_NUMBER = re.compile(r"[0-9]{8}\.json")
_MOST = 64 << 10  # bytes of an entry
TRIES = 100  # numbers that others may take before us

Event = Literal["published", "promoted", "refused", "rolled back"]


class Entry(Block):
    """One entry of the log."""

    event: Event
    version: str = Field(pattern=f"^{VERSION}$")
    label: str | None = Field(pattern=f"^{LABEL}$")
    reason: str | None
    at: str  # UTC, for people; the entry's number is what orders


@dataclass(frozen=True)
class Release:
    """A version that can be pulled."""

    name: str
    version: str  # twelve hex digits that name its content
    number: int  # the n-th distinct version published: `vN`
    manifest: dict[str, Any]
    labels: tuple[str, ...]  # what now stand for it
    notes: tuple[Entry, ...]  # what the log says of it, oldest first


def names(store: Store) -> list[str]:
    """Every name that something was published under."""
    return [name for name in store.children("") if re.fullmatch(NAME, name) and store.children(f"{name}/log")]


def releases(store: Store, name: str) -> list[Release]:
    """Every version of a name, the oldest first; none where nothing was published. Raises ValueError."""
    log = read_log(store, name)
    order = _published(log)
    with ThreadPoolExecutor(8) as pool:
        manifests = dict(zip(order, pool.map(lambda version: _manifest(store, name, version), order), strict=True))
    labels = {
        label: _stack(log, label)[-1] for label in dict.fromkeys(e.label for e in log if e.label) if _stack(log, label)
    }
    return [
        Release(
            name,
            version,
            number,
            manifest,
            tuple(label for label, now in labels.items() if now == version),
            tuple(entry for entry in log if entry.version == version),
        )
        for number, version in enumerate(order, start=1)
        if (manifest := manifests[version]) is not None
    ]


def resolve(store: Store, wanted: str) -> tuple[str, str]:
    """Name and version of NAME@VERSION, NAME@vN, NAME@latest or NAME#LABEL. Raises ValueError where there is none.

    A VERSION is not looked up: whoever reads its manifest finds out.
    """
    match = _WANTED.fullmatch(wanted)
    if match is None:
        raise ValueError(f"{wanted!r}: give NAME@VERSION, NAME@v3, NAME@latest or NAME#prod")
    name, version, label = match.groups()
    if version is not None and re.fullmatch(VERSION, version):
        return name, version
    log = read_log(store, name)
    order = _published(log)
    if not order:
        raise ValueError(f"no release {wanted}: nothing is published as {name} in {store.url}")
    if label is not None:
        stack = _stack(log, label)
        if not stack:
            raise ValueError(f"no release {wanted}: no version of {name} was promoted to {label}")
        return name, stack[-1]
    if version == "latest":
        return name, [entry.version for entry in log if entry.event == "published"][-1]
    number = int(version.removeprefix("v").partition(".")[0])
    if number > len(order):
        raise ValueError(f"no release {wanted}: {name} has {len(order)} versions")
    return name, order[number - 1]


def promoted(store: Store, name: str, label: str) -> str | None:
    """The version that a label stands for now, if any does."""
    stack = _stack(read_log(store, name), label)
    return stack[-1] if stack else None


def promote(store: Store, name: str, version: str, label: str, reason: str | None = None) -> None:
    """Let a label stand for a version. Adds nothing where it does already. Raises ValueError without such a release."""
    if re.fullmatch(LABEL, label) is None:
        raise ValueError(f"label {label!r}: small letters, digits and hyphens, e.g. prod")
    known(store, name, version)
    if promoted(store, name, label) != version:
        note(store, name, "promoted", version, label, reason)


def roll_back(store: Store, name: str, label: str, reason: str | None = None) -> str:
    """Let a label stand again for what it stood for before the last promotion; returns that version.

    Rolling back twice goes back twice. Raises ValueError where nothing is left to go back to.
    """
    stack = _stack(read_log(store, name), label)
    if len(stack) < 2:
        raise ValueError(f"{name}#{label}: no earlier version to go back to")
    note(store, name, "rolled back", stack[-2], label, reason)
    return stack[-2]


def refuse(store: Store, name: str, version: str, reason: str) -> None:
    """Note why a version was not promoted. Raises ValueError without such a release."""
    known(store, name, version)
    note(store, name, "refused", version, None, reason)


def known(store: Store, name: str, version: str) -> dict[str, Any]:
    """The manifest of a version. Raises ValueError where it is not there."""
    manifest = _manifest(store, name, version)
    if manifest is None:
        raise ValueError(f"no release {name}@{version} in {store.url}; `vlmr1 releases {name}` lists those there are")
    return manifest


def note(store: Store, name: str, event: Event, version: str, label: str | None, reason: str | None) -> None:
    """Add an entry to the log, at the first number nobody has taken."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"event": event, "version": version, "label": label, "reason": reason, "at": at}
    data = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
    first = max((int(number) for number in _numbers(store, name)), default=0) + 1
    for number in range(first, first + TRIES):
        try:
            return store.put_new(data, f"{name}/log/{number:08}.json")
        except FileExistsError:
            continue
    raise ValueError(f"{name}/log: {TRIES} numbers were taken by others at this moment; try again")


def read_log(store: Store, name: str) -> list[Entry]:
    """The log, oldest first. Raises ValueError for an entry that is none."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda number: _entry(store, f"{name}/log/{number}.json"), _numbers(store, name)))


def _numbers(store: Store, name: str) -> list[str]:
    return [child.removesuffix(".json") for child in store.children(f"{name}/log") if _NUMBER.fullmatch(child)]


def _entry(store: Store, key: str) -> Entry:
    try:
        return Entry.model_validate_json(store.read(key, _MOST))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ValueError(f"{key}: not an entry of a release log: {where} {error.errors()[0]['msg']}") from None


def _published(log: list[Entry]) -> list[str]:
    """Versions by their first publication."""
    return list(dict.fromkeys(entry.version for entry in log if entry.event == "published"))


def _stack(log: list[Entry], label: str) -> list[str]:
    """What a label stood for, what it stands for now last; what was rolled back is gone from it."""
    stack: list[str] = []
    for entry in log:
        if entry.label == label and entry.event == "promoted":
            stack.append(entry.version)
        elif entry.label == label and entry.event == "rolled back":
            while stack and stack[-1] != entry.version:
                stack.pop()
            stack = stack or [entry.version]
    return stack


def _manifest(store: Store, name: str, version: str) -> dict[str, Any] | None:
    """The manifest of a version, None where there is none yet."""
    try:
        return check_manifest(store.read(f"{name}/{version}/{MANIFEST}", MOST_BYTES), name, version)
    except FileNotFoundError:
        return None
