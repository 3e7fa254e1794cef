"""Putting a release into a store: files first, the manifest last, a version once, and then its entry in the log."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmr1.errors import TransientError
from vlmr1.files import sha256
from vlmr1.release.log import note
from vlmr1.release.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    MOST_BYTES,
    check_manifest,
    describe,
    describe_files,
    stored_as,
    version_of,
)
from vlmr1.release.secrets import refuse_secrets, refuse_secrets_in
from vlmr1.release.store import BEGUN, Store, side_by_side

GUARD = 3600.0  # seconds for which an unfinished version is left alone: somebody may be publishing it


def publish(
    store: Store,
    name: str,
    checkpoint: Path,
    about: dict[str, Any],
    where: dict[str, Any],
    card: Callable[[str], str],
    pictures: Mapping[str, Path],
) -> str:
    """Publish a checkpoint folder and return its version. Repeating it goes on with what was sent, or changes nothing.

    `about` (see `manifest.About`) takes part in the version; `where` (`manifest.Where`), the card, which is made from
    the version, and the pictures it shows, by their names in the release, do not: a repeat by another commit is noted
    in the log. Raises ValueError before anything is sent where the release holds what it must not, and where a file
    changes meanwhile; TransientError from the store.
    """
    files = describe_files(checkpoint)
    version = version_of(files, about)
    base = f"{name}/{version}"
    refuse_secrets_in(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / CARD
        shown.write_text(card(version), encoding="utf-8")
        refuse_secrets(shown.read_text(encoding="utf-8"), "the card, of params.yaml and scores,")
        sent = {key: checkpoint / key for key in files} | dict(pictures) | {CARD: shown}
        beside = {key: describe(path) for key, path in sent.items() if key not in files or key == CARD}
        manifest = {"format": FORMAT, "name": name, "version": version, "files": files | beside}
        if store.size(f"{base}/{MANIFEST}") is None:
            _send(store, sent, manifest | {"about": about, "where": where}, Path(folder) / BEGUN)
        there = check_manifest(store.read(f"{base}/{MANIFEST}", MOST_BYTES), name, version)
        _mend(store, sent, there)
    note(store, name, "published", version, None, None)
    if _origin(where) != _origin(there["where"]):
        note(store, name, "made again", version, None, _origin(where))
    try:
        store.sweep(base)
    except (ValueError, TransientError) as error:  # the release is whole without it
        warnings.warn(f"scraps of an interrupted publication may be left: {error}", stacklevel=2)
    return version


def _send(store: Store, files: Mapping[str, Path], manifest: dict[str, Any], mark: Path) -> None:
    """The files, and when all are there the manifest. `mark` is a file to write that tells `clean` of this attempt."""
    name, version = manifest["name"], manifest["version"]
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    check_manifest(text, name, version)
    refuse_secrets(text, "the manifest, of params.yaml and scores,")
    base = f"{name}/{version}"
    mark.write_text(str(time.time_ns()), encoding="utf-8")  # never the same twice, so it is written and young

    def put(key: str) -> None:
        facts = manifest["files"][key]
        store.put(files[key], f"{base}/{stored_as(key, facts)}", facts["sha256"])

    try:
        store.put(mark, f"{base}/{BEGUN}", sha256(mark))
        side_by_side(put, files, store.side_by_side)
        store.put_new(text.encode(), f"{base}/{MANIFEST}")
    except (FileExistsError, FileNotFoundError):
        # Another publisher was first, and swept. The version names the content, so theirs must be the same.
        if store.size(f"{base}/{MANIFEST}") is None:
            raise


def _mend(store: Store, files: Mapping[str, Path], manifest: dict[str, Any]) -> None:
    """Send again what is gone of a version that is visible: what a `clean` took that began before this attempt.

    Raises ValueError for a card or picture that this run, of another commit, cannot make again.
    """
    base = f"{manifest['name']}/{manifest['version']}"

    def look(key: str) -> None:
        facts = manifest["files"][key]
        at = f"{base}/{stored_as(key, facts)}"
        if store.size(at) != facts["size"]:
            if key not in files or describe(files[key]) != facts:
                raise ValueError(
                    f"{base}: {key} is gone from {store.url}, and this run has another; bring it back there"
                )
            store.put(files[key], at, facts["sha256"])

    side_by_side(look, manifest["files"], store.side_by_side)


def _origin(where: Mapping[str, Any]) -> str:
    """Commit and changes of a run in words."""
    return f"commit {where['commit'] or 'unknown'}, changed: {', '.join(where['changed']) or 'nothing'}"


def clean(store: Store, name: str, age: float = GUARD) -> dict[str, list[str]]:
    """Remove what interrupted publications left: versions without a manifest in which nothing is younger than `age`.

    Returns the files removed, by version.
    """
    found = {}
    for version in store.children(name):
        if version != "log" and store.size(f"{name}/{version}/{MANIFEST}") is None:
            found[version] = store.remove(f"{name}/{version}", age)
    return {version: files for version, files in found.items() if files}
