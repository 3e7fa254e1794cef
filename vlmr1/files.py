"""Files: atomic writes, hashes, and paths that stay inside their folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Write text so that `path` holds all of it or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with stable bytes, atomically. NaN and infinity are refused: they are not JSON."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `target`, which takes its place only when the block ends without error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what an interrupted run left
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(target)
    temporary.replace(target)


def check_target(option: str, target: Path, inputs: Mapping[str, Path | None]) -> None:
    """Refuse, before any work, a file that a command cannot write, or one that is, or lies in, what it reads.

    `inputs` are files and folders by their options. Raises ValueError naming both options.
    """
    if target.is_dir() or not target.name:
        raise ValueError(f"{option} {target}: a folder; name a file in it")
    for other, path in inputs.items():
        if path is not None and path.resolve() == target.resolve():
            raise ValueError(f"{option} {target}: is the file of {other}, which it would overwrite; name another")
        if path is not None and path.resolve() in target.resolve().parents and path.is_dir():
            raise ValueError(f"{option} {target}: lies in the folder of {other}, whose lists are read; name another")


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_weights(folder: Path) -> str:
    """One hex sha256 for a checkpoint's weights: over the names and sha256 of their files."""
    files = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, for a name that comes from data.

    Raises ValueError when the name is absolute, climbs out with `..`, passes through a link that leads out or in a
    circle, or is none that a file can have.
    """
    root = folder.resolve()
    try:
        path = (root / name).resolve()
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} leads to no file ({error}); give a path relative to {folder}") from error
    if Path(name).is_absolute() or not path.is_relative_to(root) or path == root:
        raise ValueError(f"{name!r} leaves its folder {folder}; give a path relative to it")
    return folder / name


def rounded(value: Any, digits: int = 6) -> Any:
    """Floats rounded through nested dicts and lists, for files people read and diff."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return value
