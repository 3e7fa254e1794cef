"""The files that a score is asked to read: there, of the right kind, and not the one for the other.

Only the first object of a file is looked at; what else is wrong with it its reader says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDERS = ("ovdeval_overall", "d3", "odinw", "opencompass_math")  # benchmarks whose annotations are a folder
HEAD = 20_000  # characters
DETECTED = {"image_id", "category_id", "bbox", "score"}


def check_files(benchmark: str, annotations: Path, predictions: Mapping[str, Path | None]) -> None:
    """Raises FileNotFoundError or ValueError naming the option, for annotations and for predictions by their option."""
    folders = benchmark in FOLDERS
    _there("--annotations", annotations, folders)
    for option, path in predictions.items():
        if path is not None:
            _there(option, path, folders and benchmark != "d3")
    first = {} if folders else _first(annotations)
    if "completion" in first or first.keys() >= DETECTED:
        raise ValueError(f"--annotations {annotations}: holds predictions: is it swapped with --predictions?")


def _there(option: str, path: Path, folder: bool) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{option} {path}: not found")
    if folder and not path.is_dir():
        raise ValueError(f"{option} {path}: a file where a folder is needed, with a file of each set")
    if not folder and path.is_dir():
        raise ValueError(f"{option} {path}: a folder where a file is needed; name the file in it")


def _first(path: Path) -> dict[str, Any]:
    """The first object of a JSON list or of JSON Lines; nothing for one that is large, or none."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.read(HEAD).lstrip("[ \n\r\t")
    try:
        value, _ = json.JSONDecoder().raw_decode(head)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
