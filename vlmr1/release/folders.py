"""Folders of one computer among a release's parameters: a manifest has of them the last part alone, as `…/NAME`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmr1.provenance import ELSEWHERE, without_place

_KEYS = (("data", "root"), ("warmup", "pretrained", "model"))


def hide(params: dict[str, Any]) -> None:
    """Leave out where the data and a base lie that are no part of the project."""
    _each(params, lambda _, value: without_place(value))


def find(params: dict[str, Any], here: dict[str, Any]) -> None:
    """Put in where they lie on this computer, as its own params say. Raises ValueError where these do not."""

    def look(keys: tuple[str, ...], value: str) -> str:
        if not value.startswith(ELSEWHERE):
            return value
        found = _at(here, keys)
        if found is None or Path(found).name != value.removeprefix(ELSEWHERE) or not Path(found).is_dir():
            raise ValueError(f"{'.'.join(keys)}: it was a folder {value} of that computer; name it in params.yaml here")
        return str(Path(found).resolve())

    _each(params, look)


def _at(params: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        params = params.get(key) if isinstance(params, dict) else None
    return params


def _each(params: dict[str, Any], act: Callable[[tuple[str, ...], str], str]) -> None:
    for keys in _KEYS:
        if isinstance(value := _at(params, keys), str):
            _at(params, keys[:-1])[keys[-1]] = act(keys, value)
