"""Getting a release out of a store: every byte verified before the folder appears."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmr1.files import inside, sha256, whole_folder
from vlmr1.release.manifest import MANIFEST, check_manifest
from vlmr1.release.publish import LATEST
from vlmr1.release.store import Store

_WANTED = re.compile(r"([a-z0-9][a-z0-9_-]*)@([a-z0-9][a-z0-9.-]*)")


def pull(store: Store, wanted: str, target: Path, said: Callable[[str], None]) -> dict[str, Any]:
    """Land NAME@VERSION (or NAME@latest) in `target`, which must not hold anything yet. Returns the manifest.

    Raises ValueError where the name, the store's content or the target is at fault; `target` is then as it was.
    """
    match = _WANTED.fullmatch(wanted)
    if match is None:
        raise ValueError(f"{wanted!r}: give NAME@VERSION or NAME@latest")
    name, version = match.groups()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} already holds something; give a new folder")
    try:
        if version == LATEST:
            version = store.read(f"{name}/{LATEST}").decode().strip()
        text = store.read(f"{name}/{version}/{MANIFEST}").decode()
    except FileNotFoundError as error:
        raise ValueError(f"no release {wanted} in this store") from error
    manifest = check_manifest(text)
    if (manifest["name"], manifest["version"]) != (name, version):
        raise ValueError(f"the manifest at {name}/{version} is of {manifest['name']}@{manifest['version']}")
    with whole_folder(target) as folder:
        for key, facts in manifest["files"].items():
            path = inside(folder, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                store.get(f"{name}/{version}/{key}", path)
            except FileNotFoundError as error:
                raise ValueError(f"{name}@{version}: {key} is missing from the store") from error
            if path.stat().st_size != facts["size"] or sha256(path) != facts["sha256"]:
                raise ValueError(f"{name}@{version}: {key} differs from its manifest; nothing was kept")
            said(f"verified {key} ({facts['size']:,} bytes)")
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest
