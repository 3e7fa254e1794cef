"""Folders of half-finished work: `work/NAME/`, which only the very same run may continue."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from vlmr1.files import sha256, write_json


def open_work(work: Path, about: dict[str, Any]) -> Path:
    """The folder of half-finished work for exactly this run; what another run left there is cleared."""
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    mark = work / "fingerprint.json"
    if not mark.is_file() or json.loads(mark.read_text())["fingerprint"] != fingerprint:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(mark, {"fingerprint": fingerprint, "about": about})
    return work


def fingerprint_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
