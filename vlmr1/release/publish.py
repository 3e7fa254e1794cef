"""Putting a release into a store: files first, the manifest last, a version once, and then its entry in the log."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
from vlmr1.release.registry import promoted
from vlmr1.release.secrets import refuse_secrets, refuse_secrets_in
from vlmr1.release.store import Store

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

    `about` (see `manifest.About`) takes part in the version; `where`, the card, made from the version, and the
    pictures it shows, by their names in the release, do not. Raises ValueError before anything is sent where the
    release holds what it must not, TransientError from the store.
    """
    files = describe_files(checkpoint)
    version = version_of(files, about)
    base = f"{name}/{version}"
    if store.size(f"{base}/{MANIFEST}") is None:
        refuse_secrets_in(checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            shown = Path(folder) / CARD
            shown.write_text(card(version), encoding="utf-8")
            refuse_secrets(shown.read_text(encoding="utf-8"), "the card, of params.yaml and scores,")
            sent = {key: checkpoint / key for key in files} | dict(pictures) | {CARD: shown}
            beside = {key: describe(path) for key, path in sent.items() if key not in files or key == CARD}
            where = {**where, "parent": promoted(store, name, "prod")}
            manifest = {"format": FORMAT, "name": name, "version": version, "files": files | beside}
            _send(store, sent, manifest | {"about": about, "where": where})
    note(store, name, "published", version, None, None)
    store.sweep(base)
    return version


def _send(store: Store, files: Mapping[str, Path], manifest: dict[str, Any]) -> None:
    """The files, and when all are there the manifest."""
    name, version = manifest["name"], manifest["version"]
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    check_manifest(text, name, version)
    refuse_secrets(text, "the manifest, of params.yaml and scores,")
    base = f"{name}/{version}"
    try:
        for key, path in files.items():
            facts = manifest["files"][key]
            store.put(path, f"{base}/{stored_as(key, facts)}", facts["sha256"])
        store.put_new(text.encode(), f"{base}/{MANIFEST}")
    except (FileExistsError, FileNotFoundError):
        # Another publisher was first, and swept. The version names the content, so theirs must be the same.
        if store.size(f"{base}/{MANIFEST}") is None:
            raise
        check_manifest(store.read(f"{base}/{MANIFEST}", MOST_BYTES), name, version)


def clean(store: Store, name: str, age: float = GUARD) -> dict[str, list[str]]:
    """Remove what interrupted publications left: versions without a manifest in which nothing is younger than `age`.

    Returns the files removed, by version.
    """
    found = {}
    for version in store.children(name):
        if version != "log" and store.size(f"{name}/{version}/{MANIFEST}") is None:
            found[version] = store.remove(f"{name}/{version}", age)
    return {version: files for version, files in found.items() if files}
