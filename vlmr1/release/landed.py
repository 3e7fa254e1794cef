"""A release where it is used: pulled once into the user's cache folder, and taken from there afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vlmr1.release.pull import pull
from vlmr1.release.registry import resolve
from vlmr1.release.store import Store


def landed(wanted: str, store: Store, said: Callable[[str], None]) -> tuple[str, Path]:
    """NAME@VERSION and the folder of a release, pulled if it is not there. Raises what `pull` does."""
    name, version = resolve(store, wanted)
    folder = cache() / name / version
    if not folder.is_dir():  # a pull leaves all of it or nothing
        said(f"pulling {name}@{version} to {folder}")
        pull(store, f"{name}@{version}", folder, said)
    return f"{name}@{version}", folder


def cache() -> Path:
    """Where releases land."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmr1" / "releases"
