"""Where a result comes from: commit, data hashes, versions, machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vlmr1.device import peak_bytes
from vlmr1.work import fingerprint_of

PACKAGES = (
    *("vlmr1", "torch", "transformers", "accelerate", "deepspeed", "peft", "tokenizers", "safetensors"),
    *("numpy", "pillow", "pycocotools", "math-verify", "dvc", "prefect"),
)
ELSEWHERE = "…/"
MADE_BY_RUNS = ("metrics", "dvc.lock")  # tracked by git, rewritten by every run


def commit() -> tuple[str | None, list[str]]:
    """The commit of the working tree, and the files that differ from it, a run's own figures aside."""
    head = _git("rev-parse", "HEAD").strip()
    changes = _git("status", "--porcelain", "-z", "--no-renames", "--", ".", *(f":!{path}" for path in MADE_BY_RUNS))
    return head or None, sorted(change[3:] for change in changes.split("\0") if change)


def without_place(path: str) -> str:
    """A path of the project as it is; of one outside it, which is this computer's own, the last part, as `…/NAME`."""
    outside = Path(path).is_absolute() or ".." in Path(path).parts or path.startswith("~")
    return f"{ELSEWHERE}{Path(path).name}" if outside else path


def locked(lock: Mapping[str, Any], graph: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a dvc.lock says of the stages before publish: by stage and path, the md5 of what it read and made.

    `graph` is the dvc.yaml beside it: a lock may still hold stages that are no more.
    """
    return {
        name: {
            without_place(one["path"]): one["md5"]
            for one in [*stage.get("deps", []), *stage.get("outs", [])]
            if "md5" in one
        }
        for name, stage in lock["stages"].items()
        if name.partition("@")[0] in graph["stages"] and name != "publish"
    }


def _git(*arguments: str) -> str:
    """git's answer, or "" where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout


def folder_digest(folder: Path) -> str:
    """One sha256 for a folder: over the names and sha256 of its files."""
    return hashlib.sha256(json.dumps(fingerprint_of(folder), sort_keys=True).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages a result depends on; those not installed are left out."""
    installed = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


def peak_memory() -> str:
    """The most memory that this process has held, and on its accelerator."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    said = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:.0f} MB"
    if "torch" in sys.modules and (peak := peak_bytes()) is not None:
        said += f", {peak / 2**20:.0f} MB on the accelerator"
    return said


def machine() -> dict[str, Any]:
    """What this computer is, without its name."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
    }
