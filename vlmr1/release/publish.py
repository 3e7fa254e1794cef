"""Putting a release into a store: files first, the manifest last, a version once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmr1.files import whole_folder
from vlmr1.release.manifest import FORMAT, MANIFEST, check_manifest, describe_files, version_of
from vlmr1.release.store import Store

LATEST = "latest"  # a small file beside the versions that names the one published last


def publish(
    store: Store,
    name: str,
    checkpoint: Path,
    work: Path,
    about: dict[str, Any],
    where: dict[str, Any],
    card: Callable[[str], str],
) -> str:
    """Publish a checkpoint folder and return its version. Repeating it, after an interruption too, changes nothing.

    `about` (scores, params, data) takes part in the version; `where` (commit, package versions) and the card, made
    from the version, do not. `work` is a folder to assemble the release in.
    """
    version = version_of(describe_files(checkpoint), about)
    base = f"{name}/{version}"
    if not store.exists(f"{base}/{MANIFEST}"):
        with whole_folder(work) as folder:
            shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
            (folder / "README.md").write_text(card(version), encoding="utf-8")
        files = describe_files(work)
        for key in files:
            store.put(work / key, f"{base}/{key}")
        manifest = {"format": FORMAT, "name": name, "version": version, **about, **where, "files": files}
        try:
            store.put_new((json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode(), f"{base}/{MANIFEST}")
        except FileExistsError:
            # Another publisher was first. The version names the content, so theirs must be the same.
            if check_manifest(store.read(f"{base}/{MANIFEST}").decode())["version"] != version:
                raise
        shutil.rmtree(work)
    store.replace(f"{version}\n".encode(), f"{name}/{LATEST}")
    return version
