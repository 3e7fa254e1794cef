"""The manifest: what a release holds, file by file, and where it came from. No times in it: same run, same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from vlmr1.files import sha256

MANIFEST = "manifest.json"
FORMAT = 1
MAX_FILES = 10_000


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """{relative path: {sha256, size}} of every file below a folder, sorted."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def version_of(files: dict[str, dict[str, Any]], about: dict[str, Any]) -> str:
    """Twelve hex digits that name these files with these scores and params, and nothing else."""
    text = json.dumps({"files": files, "about": about}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_manifest(text: str) -> dict[str, Any]:
    """Parse a manifest from a store. Raises ValueError on what is not one, or names a file out of place."""
    try:
        manifest = json.loads(text)
        files = manifest["files"]
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']!r} is not {FORMAT}; update vlmr1")
        if not isinstance(files, dict) or not 0 < len(files) <= MAX_FILES:
            raise ValueError(f"between 1 and {MAX_FILES} files are expected")
        for name, facts in files.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or name != str(path) or name == MANIFEST:
                raise ValueError(f"file name {name!r} would leave the folder")
            if not isinstance(facts["size"], int) or facts["size"] < 0 or len(facts["sha256"]) != 64:
                raise ValueError(f"{name}: size or sha256 is not one")
        if len({name.lower() for name in files}) != len(files):
            raise ValueError("two file names differ only by case")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a release manifest: {type(error).__name__}: {error}") from error
    return manifest
