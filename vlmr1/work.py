"""Folders of half-finished work: `work/NAME/`, which only the very same run may continue.

The same run: same parameters, same inputs, same code of this package, same torch and transformers. A picture that
could not be read, and so never took part, may be mended in between. When a stage has left its results it removes its
folder, so that a forced run really runs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from vlmr1.files import inside, sha256, write_json
from vlmr1.launch import first_alone, is_first
from vlmr1.sample import Source
from vlmr1.settings import Compute

PACKAGE = Path(__file__).parent
MENDABLE = "mendable.json"
SHOWN = 5  # differences that a refusal names


def open_work(work: Path, about: Callable[[], dict[str, Any]], refuse: bool = False) -> Path:
    """The folder of half-finished work for exactly this run, of which `about` tells; the first process asks it.

    What another run left there is cleared, or with `refuse` a ValueError says what differs.
    """
    with first_alone():
        if is_first():
            _open(work, about(), refuse)
    return work


def told(compute: Compute) -> dict[str, Any]:
    """Settings as plain data, without what changes nothing of the result: who prepares, and how many processes train.

    DeepSpeed's checkpoints are in as many parts as there were processes, and only as many can take them up.
    """
    idle = {"workers", "on_out_of_memory"} if compute.deepspeed else {"launch", "workers", "on_out_of_memory"}
    return compute.model_dump(mode="json", exclude=idle)


def _open(work: Path, about: dict[str, Any], refuse: bool) -> None:
    code = {path.relative_to(PACKAGE).as_posix(): sha256(path) for path in sorted(PACKAGE.rglob("*.py"))}
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    mark = json.loads(json.dumps({"about": about, "code": code, "versions": versions}))
    path = work / "fingerprint.json"
    left = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    excused = {name for one in work.glob(f"*-{MENDABLE}") for name in json.loads(one.read_text(encoding="utf-8"))}
    if left is None or _excusing(left, excused) != _excusing(mark, excused):
        if refuse and any(work.glob("checkpoint-*")):  # a run refused before its first step left nothing to lose
            raise ValueError(
                f"{work}: holds the checkpoints of another run ({', '.join(_differences(left, mark)[:SHOWN])}); remove"
                " it, or name another output"
            )
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    write_json(path, mark)


def _differences(then: Any, now: Any, key: str = "") -> list[str]:
    """What differs between two marks, by key; of settings with both values."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*then, *now])
        return [one for name in keys for one in _differences(then.get(name), now.get(name), f"{key}.{name}".strip("."))]
    if then == now:
        return []
    short = key.removeprefix("about.")
    plain = not any(isinstance(value, list) or len(str(value)) > 40 for value in (then, now))
    return [f"{short} was {then}, is {now}" if plain else f"{short} differs"]


def _excusing(mark: dict[str, Any], pictures: set[str]) -> dict[str, Any]:
    """The mark without the hashes of some pictures."""
    data = mark["about"].get("data")
    if not pictures or not isinstance(data, dict):
        return mark
    kept = {
        folder: {name: digest for name, digest in files.items() if str(Path(folder) / name) not in pictures}
        for folder, files in data["pictures"].items()
    }
    return {**mark, "about": {**mark["about"], "data": {**data, "pictures": kept}}}


def excuse(work: Path, pictures: Iterable[Path]) -> None:
    """Remember which pictures cannot be read, so that mending them leaves this work good."""
    path = work / f"{os.environ.get('RANK', '0')}-{MENDABLE}"  # a file a process: they stop side by side
    excused = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    write_json(path, sorted({*excused, *map(str, pictures)}))


def inputs_of(converted: Path, sources: Sequence[Source]) -> dict[str, Any]:
    """What a stage reads of the data, by content: a role's converted sources, and the pictures they refer to."""
    return {"converted": fingerprint_of(converted), "pictures": pictures_of(sources)}


def pictures_of(sources: Sequence[Source]) -> dict[str, dict[str, str]]:
    """sha256 of every picture that the sources name, by folder and name; empty for one that is not there."""
    found: dict[str, dict[str, str]] = {}
    for source in sources:
        hashes = found.setdefault(str(source.images), {})
        for name in {name for sample in source.samples for name in sample.images} - hashes.keys():
            path = inside(source.images, name)
            hashes[name] = sha256(path) if path.is_file() else ""
    return {folder: dict(sorted(hashes.items())) for folder, hashes in sorted(found.items())}


def fingerprint_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
