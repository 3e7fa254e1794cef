"""Which versions of a name there are, in what order they came, and what each label (`prod`) stands for now.

All of it follows from the name's log (`log.py`). A version counts only where its manifest is.
Left out on purpose: deleting or renaming a version.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from vlmr1.release.log import ANY, Entry, held, note, read_log, refusal_of, stack_of, standing, versions
from vlmr1.release.manifest import MANIFEST, MOST_BYTES, check_manifest
from vlmr1.release.showing import clean_text
from vlmr1.release.store import Store
from vlmr1.settings.releases import LABEL, NAME, VERSION, check_label

SHOWN = 3  # versions that are named to whoever asked for another
_WANTED = re.compile(rf"({NAME})(?:@({VERSION}|latest|v[1-9][0-9]{{0,7}}(?:\.0\.0)?)|#({LABEL}))")


class LabelMoved(ValueError):
    """A label stands for another version than the one it was to be taken from."""


@dataclass(frozen=True)
class Release:
    """A version that can be pulled."""

    name: str
    version: str  # thirty-two hex digits that name its content
    number: int  # the n-th distinct version published: `vN`
    manifest: dict[str, Any]
    labels: tuple[str, ...]  # what now stand for it
    notes: tuple[Entry, ...]  # what the log says of it, oldest first
    refused: str | None  # why it was refused or rolled back, unless it was promoted all the same since


def names(store: Store) -> list[str]:
    """Every name that something was published under."""
    return [name for name in store.children("") if re.fullmatch(NAME, name) and store.children(f"{name}/log")]


@dataclass(frozen=True)
class Unreadable:
    """A version whose manifest is none: it is listed, and cannot be pulled."""

    name: str
    version: str
    number: int
    why: str


def releases(store: Store, name: str) -> list[Release]:
    """Every version of a name that can be pulled, the oldest first. Raises ValueError where the log cannot be read."""
    return [one for one in survey(store, name) if isinstance(one, Release)]


def survey(store: Store, name: str) -> list[Release | Unreadable]:
    """Every version of a name, the oldest first; none where nothing was published."""
    log = read_log(store, name)
    order = versions(log)

    def read(version: str) -> dict[str, Any] | str | None:
        try:
            return _manifest(store, name, version)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        manifests = dict(zip(order, pool.map(read, order), strict=True))
    labels = held(log)
    return [
        Unreadable(name, version, number, manifest)
        if isinstance(manifest, str)
        else Release(
            name,
            version,
            number,
            manifest,
            tuple(label for label, now in labels.items() if now == version),
            tuple(entry for entry in log if entry.version == version),
            refusal_of(log, version),
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
    order = versions(log)
    if not order:
        raise ValueError(f"no release {wanted}: nothing is published as {name} in {store.url}")
    if label is not None:
        stack = stack_of(log, label)
        if not stack:
            raise ValueError(f"no release {wanted}: no version of {name} was promoted to {label}; {_labels(name, log)}")
        return name, stack[-1]
    if version == "latest":
        return name, [entry.version for entry in log if entry.event == "published"][-1]
    number = int(version.removeprefix("v").partition(".")[0])
    if number > len(order):
        there = ", ".join(f"v{n} ({version})" for n, version in [*enumerate(order, start=1)][-SHOWN:])
        which = "last versions" if len(order) > SHOWN else "versions"
        raise ValueError(f"no release {wanted}: the {which} of {name} are {there}")
    return name, order[number - 1]


def number_of(store: Store, name: str, version: str) -> int:
    """A published version is the n-th of its name."""
    return versions(read_log(store, name)).index(version) + 1


def promoted(store: Store, name: str, label: str) -> str | None:
    """The version that a label stands for now, if any does."""
    return standing(read_log(store, name), label)


def refusal(store: Store, name: str, version: str) -> str | None:
    """Why a version was refused or rolled back, unless it was promoted all the same since."""
    return refusal_of(read_log(store, name), version)


def promote(
    store: Store, name: str, version: str, label: str, reason: str | None = None, expected: str | None = ANY
) -> None:
    """Let a label stand for a version. Adds nothing where it does already.

    With `expected`, a version or None for nothing, only where the label stands for that; else raises LabelMoved, also
    where another was first at the same moment. Raises ValueError without such a release, and where it was refused or
    rolled back and no reason is given why it is wanted all the same.
    """
    check_label(label)
    known(store, name, version)
    log = read_log(store, name)
    if standing(log, label) == version:
        return
    _check_expected(name, label, expected, log)
    why = refusal_of(log, version)
    if why is not None and not reason:
        raise ValueError(
            f"{name}@{version} was refused ({clean_text(why)}); to promote it all the same, say --reason why"
        )
    note(store, name, "promoted", version, label, reason, expected)
    if expected != ANY:
        _check_expected(name, label, version, read_log(store, name))


def roll_back(store: Store, name: str, label: str, reason: str | None = None) -> str:
    """Let a label stand again for what it stood for before the last promotion; returns that version.

    Rolling back twice goes back twice. Raises ValueError where nothing is left to go back to.
    """
    log = read_log(store, name)
    stack = stack_of(log, label)
    if len(stack) < 2:
        says = "" if stack else f"; {_labels(name, log)}"
        raise ValueError(f"{name}#{label}: no earlier version to go back to{says}")
    note(store, name, "rolled back", stack[-2], label, reason)
    return stack[-2]


def remove_label(store: Store, name: str, label: str, reason: str | None = None) -> str:
    """Let a label stand for nothing any more; returns the version it stood for. Raises ValueError without one."""
    log = read_log(store, name)
    stack = stack_of(log, label)
    if not stack:
        raise ValueError(f"{name}#{label}: stands for nothing; {_labels(name, log)}")
    note(store, name, "removed", stack[-1], label, reason)
    return stack[-1]


def refuse(store: Store, name: str, version: str, reason: str) -> None:
    """Note why a version was not promoted, once. Raises ValueError without such a release."""
    known(store, name, version)
    note(store, name, "refused", version, None, reason)


def known(store: Store, name: str, version: str) -> dict[str, Any]:
    """The manifest of a version. Raises ValueError where it is not there."""
    manifest = _manifest(store, name, version)
    if manifest is None:
        raise ValueError(f"no release {name}@{version} in {store.url}; `vlmr1 releases {name}` lists those there are")
    return manifest


def _check_expected(name: str, label: str, expected: str | None, log: list[Entry]) -> None:
    now = standing(log, label)
    if expected not in (ANY, now):
        raise LabelMoved(f"{name}#{label}: now stands for {now or 'nothing'}, no longer for {expected or 'nothing'}")


def _labels(name: str, log: list[Entry]) -> str:
    """Which labels a name has, for whoever asked for another."""
    there = ", ".join(f"#{label} ({version})" for label, version in held(log).items())
    return f"{name} has {there}" if there else f"{name} has no label; `vlmr1 promote {name}@VERSION LABEL` gives one"


def _manifest(store: Store, name: str, version: str) -> dict[str, Any] | None:
    """The manifest of a version, None where there is none yet."""
    try:
        return check_manifest(store.read(f"{name}/{version}/{MANIFEST}", MOST_BYTES), name, version)
    except FileNotFoundError:
        return None
