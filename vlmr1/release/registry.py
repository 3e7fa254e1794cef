"""Which versions of a name there are, in what order they came, and what each label (`prod`) stands for now.

Beside its versions a name has a log, NAME/log/00000001.json and so on: what was published, promoted, refused,
rolled back, and which label removed. An entry is written once and never changed, so two who write at a time take two
numbers, and the history of a label can always be told. A version counts only where its manifest is.
Left out on purpose: deleting or renaming a version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from vlmr1.release.manifest import MANIFEST, MOST_BYTES, check_manifest
from vlmr1.release.secrets import refuse_secrets
from vlmr1.release.showing import clean_text
from vlmr1.release.store import Store, within
from vlmr1.settings.base import Block
from vlmr1.settings.releases import LABEL, NAME, VERSION, Version, check_label

_WANTED = re.compile(rf"({NAME})(?:@({VERSION}|latest|v[1-9][0-9]{{0,7}}(?:\.0\.0)?)|#({LABEL}))")
_NUMBER = re.compile(r"[0-9]{8}\.json")
_MOST = 64 << 10  # bytes of an entry
TRIES = 100  # numbers that others may take before us

Event = Literal["published", "promoted", "refused", "rolled back", "removed"]


class Entry(Block):
    """One entry of the log."""

    event: Event
    version: Version
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

    @property
    def refused(self) -> str | None:
        """Why it was refused, unless it was promoted all the same since; None where it was not."""
        return _refusal(self.notes)


def names(store: Store) -> list[str]:
    """Every name that something was published under."""
    return [name for name in store.children("") if re.fullmatch(NAME, name) and store.children(f"{name}/log")]


def releases(store: Store, name: str) -> list[Release]:
    """Every version of a name, the oldest first; none where nothing was published. Raises ValueError."""
    log = read_log(store, name)
    order = _published(log)
    with ThreadPoolExecutor(8) as pool:
        manifests = dict(zip(order, pool.map(lambda version: _manifest(store, name, version), order), strict=True))
    labels = _held(log)
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
            raise ValueError(f"no release {wanted}: no version of {name} was promoted to {label}; {_labels(name, log)}")
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
    """Let a label stand for a version. Adds nothing where it does already.

    Raises ValueError without such a release, and where it was refused and no reason is given why it is wanted all the
    same.
    """
    check_label(label)
    known(store, name, version)
    log = read_log(store, name)
    if _stack(log, label)[-1:] == [version]:
        return
    refusal = _refusal(entry for entry in log if entry.version == version)
    if refusal is not None and not reason:
        raise ValueError(
            f"{name}@{version} was refused ({clean_text(refusal)}); to promote it all the same, say --reason why"
        )
    note(store, name, "promoted", version, label, reason)


def roll_back(store: Store, name: str, label: str, reason: str | None = None) -> str:
    """Let a label stand again for what it stood for before the last promotion; returns that version.

    Rolling back twice goes back twice. Raises ValueError where nothing is left to go back to.
    """
    log = read_log(store, name)
    stack = _stack(log, label)
    if len(stack) < 2:
        says = "" if stack else f"; {_labels(name, log)}"
        raise ValueError(f"{name}#{label}: no earlier version to go back to{says}")
    note(store, name, "rolled back", stack[-2], label, reason)
    return stack[-2]


def remove_label(store: Store, name: str, label: str, reason: str | None = None) -> str:
    """Let a label stand for nothing any more; returns the version it stood for. Raises ValueError without one."""
    log = read_log(store, name)
    stack = _stack(log, label)
    if not stack:
        raise ValueError(f"{name}#{label}: stands for nothing; {_labels(name, log)}")
    note(store, name, "removed", stack[-1], label, reason)
    return stack[-1]


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


def note(
    store: Store, name: str, event: Event, version: str, label: str | None, reason: str | None, once: bool = False
) -> None:
    """Add an entry to the log, at the first number nobody has taken; with `once` only where none says the same."""
    refuse_secrets(reason or "", "the reason")
    for _ in range(TRIES):
        numbers = _numbers(store, name)  # what is looked through is what the next number follows from
        if once and any((e.event, e.version) == (event, version) for e in _entries(store, name, numbers)):
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"event": event, "version": version, "label": label, "reason": reason, "at": at}
        data = within((json.dumps(entry, ensure_ascii=False) + "\n").encode(), _MOST, f"{name}/log: this entry")
        try:
            return store.put_new(data, f"{name}/log/{max(map(int, numbers), default=0) + 1:08}.json")
        except FileExistsError:  # another was first
            continue
    raise ValueError(f"{name}/log: {TRIES} numbers were taken by others at this moment; try again")


def read_log(store: Store, name: str) -> list[Entry]:
    """The log, oldest first. Raises ValueError for an entry that is none."""
    return _entries(store, name, _numbers(store, name))


def _entries(store: Store, name: str, numbers: list[str]) -> list[Entry]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda number: _entry(store, f"{name}/log/{number}.json"), numbers))


def _numbers(store: Store, name: str) -> list[str]:
    return [child.removesuffix(".json") for child in store.children(f"{name}/log") if _NUMBER.fullmatch(child)]


def _entry(store: Store, key: str) -> Entry:
    try:
        return Entry.model_validate_json(store.read(key, _MOST))
    except ValidationError as error:
        where = clean_text(".".join(map(str, error.errors()[0]["loc"]))[:200])
        raise ValueError(f"{key}: not an entry of a release log: {where} {error.errors()[0]['msg']}") from None


def _published(log: list[Entry]) -> list[str]:
    """Versions by their first publication."""
    return list(dict.fromkeys(entry.version for entry in log if entry.event == "published"))


def _stack(log: list[Entry], label: str) -> list[str]:
    """What a label stood for, what it stands for now last; what was rolled back is gone from it."""
    stack: list[str] = []
    for entry in log:
        if (
            entry.label == label and entry.event == "promoted" and stack[-1:] != [entry.version]
        ):  # two may say it at once
            stack.append(entry.version)
        elif entry.label == label and entry.event == "rolled back":
            while stack and stack[-1] != entry.version:
                stack.pop()
            stack = stack or [entry.version]
        elif entry.label == label and entry.event == "removed":
            stack = []
    return stack


def _held(log: list[Entry]) -> dict[str, str]:
    """The version of every label that stands for one."""
    stacks = {entry.label: _stack(log, entry.label) for entry in log if entry.label is not None}
    return {label: stack[-1] for label, stack in stacks.items() if stack}


def _labels(name: str, log: list[Entry]) -> str:
    """Which labels a name has, for whoever asked for another."""
    held = _held(log)
    there = ", ".join(f"#{label} ({version})" for label, version in held.items())
    return f"{name} has {there}" if held else f"{name} has no label; `vlmr1 promote {name}@VERSION LABEL` gives one"


def _refusal(notes: Iterable[Entry]) -> str | None:
    """Why a version of these notes is refused: what was decided of it last counts."""
    decided = [entry for entry in notes if entry.event in ("refused", "promoted", "rolled back")]
    return decided[-1].reason or "no reason was given" if decided and decided[-1].event == "refused" else None


def _manifest(store: Store, name: str, version: str) -> dict[str, Any] | None:
    """The manifest of a version, None where there is none yet."""
    try:
        return check_manifest(store.read(f"{name}/{version}/{MANIFEST}", MOST_BYTES), name, version)
    except FileNotFoundError:
        return None
