"""The files that a score is asked to read: there, of the right kind, and not the one for the other.

Only the first object of a file is looked at; what else is wrong with it its reader says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
    first = {} if folders else first_of(annotations)
    if "completion" in first or first.keys() >= DETECTED:
        raise ValueError(f"--annotations {annotations}: holds predictions: is it swapped with --predictions?")


def _there(option: str, path: Path, folder: bool) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{option} {path}: not found")
    if folder and not path.is_dir():
        raise ValueError(f"{option} {path}: a file where a folder is needed, with a file of each set")
    if not folder and path.is_dir():
        raise ValueError(f"{option} {path}: a folder where a file is needed; name the file in it")


def first_of(path: Path) -> dict[str, Any]:
    """The first object of a JSON list or of JSON Lines; nothing for one that is large, or none."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.read(HEAD).lstrip("[ \n\r\t")
    try:
        value, _ = json.JSONDecoder().raw_decode(head)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def pairs(annotations: Path, predictions: Path, wanted: Iterable[str] | None) -> dict[str, tuple[Path, Path]]:
    """Annotations and predictions of each set by its name: NAME.json or NAME.jsonl, or the one such file below NAME/.

    Without `wanted`, every set that the annotations have. Raises ValueError for one that either folder lacks.
    """
    true, said = _sets(annotations), _sets(predictions)
    names = sorted(true) if wanted is None else list(wanted)
    for folder, sets in ((annotations, true), (predictions, said)):
        missing = [name for name in names if name not in sets]
        if missing:
            kind = "predictions" if folder == predictions else "annotations"
            raise ValueError(
                f"{folder}: no {kind} of set {missing[0]}, which are {missing[0]}.json, .jsonl, or the one such file"
                f" below {missing[0]}/"
            )
    unknown = sorted(set(said) - set(names))
    if unknown:
        raise ValueError(f"{predictions}: {unknown[0]} is none of the sets, which are {', '.join(names)}; remove it")
    return {name: (true[name], said[name]) for name in names}


def _sets(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        lists = [file for file in files if file.is_file() and file.suffix in (".json", ".jsonl")]
        name = path.stem if path.is_file() else path.name
        if len(lists) > 1 or (lists and name in found):
            raise ValueError(f"{path}: several lists of set {name}; leave one")
        if lists:
            found[name] = lists[0]
    if not found:
        raise ValueError(f"{folder}: no .json or .jsonl in it")
    return found
