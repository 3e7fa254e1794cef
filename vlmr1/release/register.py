"""Releases as tags of the repository, for DVC and GTO: NAME@v3.0.0 for the third, NAME#prod#1 for a label.

`dvc artifacts get . NAME --rev v3.0.0` then brings models/grpo of that commit from DVC's own storage. GTO admits
whole semantic versions only, so the n-th release is vN.0.0.
"""

from __future__ import annotations

import subprocess
from importlib import util
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from vlmr1.provenance import locked
from vlmr1.release.registry import known, number_of
from vlmr1.release.store import Store


def register(store: Store, name: str, version: str) -> str:
    """Tag HEAD as a release; returns the tag. Raises ValueError where HEAD is not the run that made it."""
    if util.find_spec("gto") is None:
        raise ValueError("register: GTO is not installed; it comes with DVC: pip install -e '.[flows]'")
    manifest = known(store, name, version)
    lock, graph = (_committed(file) for file in ("dvc.lock", "dvc.yaml"))
    then, now = manifest["where"]["dvc_lock"], locked(lock, graph)
    differing = [stage for stage in {**then, **now} if then.get(stage) != now.get(stage)]
    if differing or not then:
        what = f"stage {differing[0]} is" if differing else "its stages are"
        raise ValueError(
            f"{name}@{version}: {what} not as HEAD's dvc.lock has it; commit the dvc.lock of that run, or check out its"
            " commit, and register again"
        )
    tag = f"{name}@{_version(store, name, version)}"
    if tag not in _git("tag", "--list", tag).split():
        _gto("register", name, "HEAD", "--version", tag.rpartition("@")[2], "--message", f"{name}@{version}")
    elif _git("rev-parse", f"{tag}^{{commit}}") != _git("rev-parse", "HEAD"):
        raise ValueError(f"{tag}: is a tag of another commit already; `git tag -d {tag}` where that was a mistake")
    return tag


def assign(store: Store, name: str, version: str, label: str) -> list[str]:
    """Give a registered release the label as GTO's stage; the tag, none where it has it or is not registered here."""
    if util.find_spec("gto") is None or not _git("rev-parse", "--git-dir", check=False):
        return []
    number = _version(store, name, version)
    if not _git("tag", "--list", f"{name}@{number}") or _gto("show", f"{name}#{label}", "--version") == number:
        return []
    return [_tagged(name, label, "assign", name, "--version", number, "--stage", label, "--force")]


def unassign(name: str, label: str) -> list[str]:
    """Take GTO's stage from every release that has it here; the tags that say so."""
    made: list[str] = []
    if util.find_spec("gto") is not None and _git("tag", "--list", f"{name}#{label}#*", check=False):
        while number := _gto(
            "show", f"{name}#{label}", "--version"
        ):  # without the last the one before it has the stage
            made.append(_tagged(name, label, "deprecate", name, number, label))
    return made


def _tagged(name: str, label: str, *words: str) -> str:
    """The tag that a command of GTO makes for a label."""
    before = set(_git("tag", "--list", f"{name}#{label}*").split())
    _gto(*words)
    return (set(_git("tag", "--list", f"{name}#{label}*").split()) - before).pop()


def _version(store: Store, name: str, version: str) -> str:
    """The release's number as GTO wants it."""
    return f"v{number_of(store, name, version)}.0.0"


def _committed(file: str) -> Any:
    text = _git("show", f"HEAD:./{file}", check=False)
    if not text:
        raise ValueError(f"{file}: not in HEAD; run from the project's folder, with the run's {file} committed")
    return YAML(typ="safe", pure=True).load(StringIO(text))


def _gto(*arguments: str) -> str:
    done = subprocess.run(["gto", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"gto {arguments[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def _git(*arguments: str, check: bool = True) -> str:
    """git's answer; where it fails a sentence, or without `check` an empty one."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        if check:
            raise ValueError("git is not installed") from None
        return ""
    if done.returncode and check:
        raise ValueError(f"git {arguments[0]}: {done.stderr.strip()}")
    return "" if done.returncode else done.stdout.strip()
