"""Folders of half-finished work: `work/NAME/`, which only the very same run may continue.

The same run: same parameters, same inputs, same code of this package, same torch and transformers. When a stage has
left its results it removes its folder, so that a forced run really runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from vlmr1.files import sha256, write_json
from vlmr1.sample import Source

PACKAGE = Path(__file__).parent


def open_work(work: Path, about: dict[str, Any]) -> Path:
    """The folder of half-finished work for exactly this run; what another run left there is cleared."""
    code = {path.relative_to(PACKAGE).as_posix(): sha256(path) for path in sorted(PACKAGE.rglob("*.py"))}
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    text = json.dumps([about, code, versions], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    mark = work / "fingerprint.json"
    if not mark.is_file() or json.loads(mark.read_text())["fingerprint"] != fingerprint:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(mark, {"fingerprint": fingerprint, "about": about})
    return work


def inputs_of(converted: Path, sources: Sequence[Source]) -> dict[str, Any]:
    """What a stage reads of the data, by content: the converted set, and the pictures it refers to."""
    folders = sorted({source.images for source in sources})
    return {"converted": fingerprint_of(converted), "pictures": {str(f): fingerprint_of(f) for f in folders}}


def fingerprint_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
