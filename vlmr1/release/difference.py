"""By how much an output of a run differs from what it once was, as DVC's cache here still has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHOWN = 5  # files, and figures of each


class Past:
    """An output as it was: files by relative path ("" for an output that is one file), from DVC's cache."""

    def __init__(self, md5: str) -> None:
        self.md5 = md5
        self.cache = _cache()

    def files(self) -> dict[str, Path] | None:
        """None where the cache here does not hold it."""
        blob = self._blob(self.md5)
        if not blob.is_file():
            return None
        if not self.md5.endswith(".dir"):
            return {"": blob}
        listed = json.loads(blob.read_text(encoding="utf-8"))
        return {one["relpath"]: self._blob(one["md5"]) for one in listed}

    def _blob(self, md5: str) -> Path:
        return self.cache / md5[:2] / md5[2:]


def _cache() -> Path:
    from dvc.repo import Repo

    with Repo() as here:
        return Path(here.cache.local.path)


def how_much(past: Past, now: Path) -> Iterator[str]:
    """Lines that say which files differ, and of those of a known kind by how much."""
    then = past.files()
    if then is None:
        yield "what it was is not in DVC's cache here; `dvc pull` at that run's commit may bring it"
        return
    found = {"": now} if now.is_file() else {p.relative_to(now).as_posix(): p for p in now.rglob("*") if p.is_file()}
    gone, new = sorted(then.keys() - found.keys()), sorted(found.keys() - then.keys())
    differing = [name for name in then if name in found and then[name].read_bytes() != found[name].read_bytes()]
    yield f"{len(differing)} of {len(then)} files differ, {len(gone)} are gone, {len(new)} are new"
    for name in differing[:SHOWN]:
        yield f"{name or now.name}: {_by(then[name], found[name], name or now.name)}"


def _by(then: Path, now: Path, name: str) -> str:
    if name.endswith(".safetensors"):
        return _weights(then, now)
    if name.endswith((".json", ".yaml")):
        texts = (json.loads(path.read_text(encoding="utf-8")) for path in (then, now))
        before, after = (dict(_figures(text)) for text in texts)
        apart = {key: (before[key], after[key]) for key in before if key in after and before[key] != after[key]}
        worst = sorted(apart, key=lambda key: -abs(apart[key][1] - apart[key][0]))[:SHOWN]
        told = ", ".join(f"{key} was {apart[key][0]:g}, is {apart[key][1]:g}" for key in worst)
        return f"{len(apart)} of {len(before)} figures differ" + (f": {told}" if told else "")
    one, other = (path.read_bytes().split(b"\n") for path in (then, now))
    unlike = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
    return f"{unlike} of {max(len(one), len(other))} rows differ"


def _weights(then: Path, now: Path) -> str:
    from safetensors import safe_open

    with safe_open(then, "pt") as one, safe_open(now, "pt") as other:
        both = [key for key in one.keys() if key in set(other.keys())]  # noqa: SIM118  (no mapping)
        alike = [key for key in both if one.get_slice(key).get_shape() == other.get_slice(key).get_shape()]
        apart = {k: (one.get_tensor(k).double() - other.get_tensor(k).double()).abs().max().item() for k in alike}
        if len(alike) < len(one.keys()):
            return f"{len(one.keys()) - len(alike)} of {len(one.keys())} tensors are gone or have another shape"
    key = max(apart, key=lambda k: apart[k])
    return f"weights differ by at most {apart[key]:.3g}, in {key}"


def _figures(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value, by its dotted key."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _figures(one, f"{key}.{name}".strip("."))
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from _figures(one, f"{key}.{i}".strip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, float(value)
