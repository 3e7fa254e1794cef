"""doctor: what can be checked in seconds before anything long starts: machine, parameters, data, store."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from vlmr1.settings import Params, World, load_params

DISK_GB, MEMORY_GB = 3, 4  # the default run's needs, with room to spare
EXTRAS = {"torch": "train", "transformers": "train", "dvc": "flows", "prefect": "flows", "great_expectations": "flows"}


@dataclass(frozen=True)
class Finding:
    good: bool
    what: str
    says: str


def examine(wake_torch: bool = True) -> list[Finding]:
    """Every check, in order; a check that cannot go on says why instead of raising."""
    findings = [_python(), _git(), _disk(), _memory(), *map(_package, EXTRAS)]
    try:
        params = load_params()
    except ValueError as error:
        faults = [line.removeprefix("params.yaml: ") for line in str(error).splitlines()]
        return [*findings, *(Finding(False, "params.yaml", fault) for fault in faults)]
    findings.append(Finding(True, "params.yaml", "every key known, every value usable"))
    if wake_torch and util.find_spec("torch"):
        findings.append(_device(params))
        if findings[-1].good:
            findings += [_processes(params), *_base(params)]
    return [*findings, *_pin(params), _rewards(params), *_data(params), _store(params)]


def _python() -> Finding:
    return Finding(sys.version_info[:2] >= (3, 11), "python", f"{platform.python_version()} (3.11 or newer is needed)")


def _git() -> Finding:
    found = shutil.which("git")
    if found is None:
        return Finding(False, "git", "not found; DVC needs it")
    named = subprocess.run([found, "config", "user.email"], capture_output=True, text=True).stdout.strip()
    return Finding(True, "git", found if named else f"{found}; no user.email set, which `dvc exp run` needs")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding(free >= DISK_GB, "disk", f"{free:.1f} GB free ({DISK_GB} are needed)")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Finding(total >= MEMORY_GB, "memory", f"{total:.1f} GB in all ({MEMORY_GB} are needed)")


def _package(name: str) -> Finding:
    if util.find_spec(name) is None:
        return Finding(False, name, f"not installed: pip install -e '.[{EXTRAS[name]}]' -c constraints/cpu-py311.txt")
    return Finding(True, name, metadata.version(name.replace("_", "-")))


def _device(params: Params) -> Finding:
    from vlmr1.device import decide, look

    try:
        return Finding(True, "device", str(decide(params.compute, look())))
    except ValueError as error:
        return Finding(False, "device", str(error))


def _processes(params: Params) -> Finding:
    """Whether this machine can run as many processes as training is to have."""
    from vlmr1.launch import check

    try:
        check(params.compute)
    except ValueError as error:
        return Finding(False, "params.yaml", str(error))
    return Finding(True, "processes", f"{params.compute.processes} for training")


def _pin(params: Params) -> list[Finding]:
    """Whether a base from elsewhere is pinned at all, which warmup refuses only after the data is converted."""
    base = params.warmup.pretrained
    if base is None or (base.revision is not None and (Path(base.model).is_dir() or len(base.revision) == 40)):
        return []
    wanted = "its digest of 64 hex digits" if Path(base.model).is_dir() else "its full commit of 40 hex digits"
    return [Finding(False, "warmup.pretrained.revision", f"{base.model} is not pinned; give {wanted}")]


def _base(params: Params) -> list[Finding]:
    """Whether a local base is of a known family that can do what is asked of it; one on the hub is not fetched."""
    base = None if params.warmup.pretrained is None else Path(params.warmup.pretrained.model)
    if base is None or not base.is_dir():
        return []
    from vlmr1.families import load_family

    try:
        family = load_family(base, params.convert.max_pixels)
        family.check_sharing(params.grpo.share_prefix)
    except ValueError as error:
        return [Finding(False, "warmup.pretrained", str(error))]
    return [Finding(True, "warmup.pretrained", f"{base}, {family.config.model_type}")]


def _rewards(params: Params) -> Finding:
    """Whether training can be given the rewards it asks for."""
    from vlmr1.grpo.wanted import check_rewards

    try:
        check_rewards(params)
    except ValueError as error:
        return Finding(False, "rewards", str(error))
    return Finding(True, "rewards", ", ".join(params.grpo.rewards))


def _data(params: Params) -> list[Finding]:
    """Whether every list can be read and every picture folder is there; validation looks at the rows."""
    from vlmr1.sources import read_source

    root = Path(params.data.root)
    if params.world is not None:
        return _world(params, params.world)
    findings = []
    counts: Counter[str] = Counter()
    for name, spec in params.data.sources.items():
        try:
            rows = sum(1 for _ in read_source(spec, root))
            if not (root / spec.images).is_dir():
                raise FileNotFoundError(f"{root / spec.images}: no such picture folder")
        except (ValueError, FileNotFoundError) as error:
            findings.append(Finding(False, f"data.sources.{name}", str(error)))
        else:
            counts[spec.role] += rows
            findings.append(Finding(True, f"data.sources.{name}", f"{rows} rows, for {spec.role}"))
    if all(finding.good for finding in findings):
        findings += _steps(params, counts)
    return findings


def _world(params: Params, world: World) -> list[Finding]:
    """The embedded data by what params say of it, whether drawn yet or not."""
    from vlmr1.world.dataset import check_world, lists

    try:
        check_world(world)
    except ValueError as error:
        return [Finding(False, "world", str(error).removeprefix("params.yaml: "))]
    rows = lists(world)
    counts: Counter[str] = Counter()
    for name, spec in params.data.sources.items():
        drawn = (spec.annotations, getattr(spec, "split", None))
        if drawn not in rows:
            return [Finding(False, f"data.sources.{name}", "the embedded world has no such list or split")]
        counts[spec.role] += rows[drawn]
    return _steps(params, counts) or [Finding(True, "data", "the embedded world, drawn by the first stage")]


def _steps(params: Params, counts: Counter[str]) -> list[Finding]:
    """Whether the rows of a role fill one step."""
    wanted = {"train": ("grpo.prompts_per_step", params.grpo.prompts_per_step)}
    if params.warmup.training is not None:
        wanted["warmup"] = ("warmup.training.batch", params.warmup.training.batch)
    return [
        Finding(False, key, f"{counts[role]} {role} rows cannot fill a step of {least}; lower it")
        for role, (key, least) in wanted.items()
        if counts[role] < least
    ]


def _store(params: Params) -> Finding:
    """Whether the release store can be asked."""
    from vlmr1.release.store import open_store

    try:
        open_store(params.publish.store).children(params.publish.name)
    except (ValueError, OSError) as error:
        return Finding(False, "publish.store", str(error))
    return Finding(True, "publish.store", params.publish.store)
