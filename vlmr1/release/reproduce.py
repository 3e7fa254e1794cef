"""Running a release again: its commit in a worktree of its own, its parameters, its inputs, and then every stage.

DVC's cache there is empty and its run cache off, so everything really runs; only inputs that no stage makes are
brought, from this repository's cache or its remote. The store is a folder of its own: nothing is published. Then each
stage's hashes are compared with the manifest's.
Left out on purpose: another machine's libraries. Package versions that differ are told, and the run goes on.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vlmr1.provenance import locked, package_versions
from vlmr1.release.difference import Past, how_much
from vlmr1.release.folders import find
from vlmr1.settings import PARAMS, read_yaml

Said = Callable[[str], None]


def reproduce(manifest: dict[str, Any], keep: Path | None, said: Said) -> bool:
    """Run a release's commit again and say, stage by stage, whether the same came out; True where all is identical.

    `keep` is where the run's folder stays. Raises ValueError before anything runs where it cannot be run again here.
    """
    name = f"{manifest['name']}@{manifest['version']}"
    where: dict[str, Any] = manifest["where"]
    _check(name, where, keep)
    for package, then in where["packages"].items():
        now = package_versions().get(package)
        if now != then:
            said(f"note: {package} was {then}, and is {now or 'not installed'} here")
    asked = copy.deepcopy(manifest["about"]["params"])
    find(asked, read_yaml(PARAMS) if PARAMS.is_file() else {})
    with _stopped_by_an_exception(), _worktree(str(where["commit"]), keep) as folder:
        _lay_params(manifest, asked, folder)
        _bring_inputs(folder, said)
        said(f"running {name} again in {folder}")
        _run(["dvc", "repro", "--force", "--no-run-cache"], folder, said)
        made = locked(read_yaml(folder / "dvc.lock"), read_yaml(folder / "dvc.yaml"))
        same = _compare(where["dvc_lock"], made, folder, said)
        version = read_yaml(folder / "reports/published.json")["version"]
    if version != manifest["version"]:
        said(f"{name}: NOT identical, this run is {version}")
    elif not same:
        said(f"{name}: the same version, yet NOT identical: not all that led to it is the same")
    else:
        said(f"{name}: identical")
    return same and version == manifest["version"]


@contextmanager
def _stopped_by_an_exception() -> Iterator[None]:
    """SIGTERM and a terminal that is gone end the run as Ctrl-C does, so that nothing of it stays."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(name: str, where: dict[str, Any], keep: Path | None) -> None:
    others = [path for path in where["changed"] if path != PARAMS.name]
    if where["commit"] is None:
        raise ValueError(f"{name}: its commit was not recorded, so nobody can run it again")
    if others:
        raise ValueError(f"{name}: was made with changes to {', '.join(others[:5])} that no commit has")
    if not Path(".dvc").is_dir():
        raise ValueError("reproduce: run it in the project's folder, which has .dvc and .git")
    if subprocess.run(["git", "cat-file", "-e", f"{where['commit']}^{{commit}}"], capture_output=True).returncode:
        raise ValueError(f"{name}: commit {where['commit']} is not in this repository; `git fetch` may bring it")
    if keep is not None and keep.exists():
        raise ValueError(f"{keep}: already there; name a new folder")


@contextmanager
def _worktree(commit: str, keep: Path | None) -> Iterator[Path]:
    """A folder with the files of a commit, removed in the end unless it is to be kept."""
    home = Path(tempfile.mkdtemp(prefix="vlmr1-reproduce-")) if keep is None else keep.resolve()
    folder, done = home / "project", False
    bare = ["git", "-c", "core.hooksPath=/dev/null", "worktree"]  # hooks are for a person's checkouts
    try:
        made = subprocess.run(
            [*bare, "add", "--quiet", "--detach", str(folder), commit], capture_output=True, text=True
        )
        if made.returncode:
            raise ValueError(f"git worktree: {made.stderr.strip()}")
        done = True
        (home / "tmp").mkdir()  # of the stages, which may be stopped before they clean up
        yield folder
    finally:
        shutil.rmtree(home / "tmp" if keep is not None and done else home, ignore_errors=True)
        subprocess.run([*bare, "prune"], check=False)  # what git knows of folders that are gone


def _lay_params(manifest: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """The release's parameters over those of the commit, with a store of this run's own."""
    params = read_yaml(folder / PARAMS) | asked
    params["publish"] = {**params["publish"], "name": manifest["name"], "store": str(folder.parent / "releases")}
    if manifest["about"]["kind"] == "adapter" or params["trained"]["lora"] is not None:
        params["publish"]["merge"] = manifest["about"]["kind"] == "model"
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # sources are drawn and read in their order
    with (folder / PARAMS).open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def _bring_inputs(folder: Path, said: Said) -> None:
    """What is under `dvc add` at that commit: from this repository's cache, or else from its remote."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.dvc"], cwd=folder, capture_output=True, text=True, check=True)
    inputs = listed.stdout.split("\0")[:-1]
    if not inputs:
        return
    from dvc.repo import Repo

    with Repo() as here:  # whose relative remotes are told by their full paths
        cache, remotes = Path(here.cache.local.path).parents[1], dict(here.config["remote"])
        default = here.config["core"].get("remote")
    credentials = folder / ".dvc/config.local"  # it may hold some
    credentials.touch(mode=0o600)
    try:
        with Repo(str(folder)) as there, there.config.edit("local") as local:
            local["remote"] = {name: dict(one) for name, one in remotes.items()} | {"this-cache": {"url": str(cache)}}
            if default is not None:
                local["core"]["remote"] = default
        for one in inputs:
            try:
                _run(["dvc", "pull", "--remote", "this-cache", one], folder, lambda _: None)
            except ValueError:  # not in this repository's cache
                _run(["dvc", "pull", one], folder, said)
            said(f"brought {one.removesuffix('.dvc')}")
    finally:
        credentials.unlink()


def _run(command: list[str], folder: Path, said: Said) -> None:
    """Run a command there with this interpreter first, telling what it says. Raises ValueError where it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "."}
    environment["TMPDIR"] = str(folder.parent / "tmp")
    last = ""
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipe) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line.strip() or last
                said(f"  {line.rstrip()}")
        except BaseException:  # stages too, which are no children of ours
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise ValueError(f"{' '.join(command[:2])} failed in the worktree: {last}")


def _compare(then: dict[str, Any], now: dict[str, Any], folder: Path, said: Said) -> bool:
    """A line for each stage; at the first that differs, by how much."""
    same = True
    for stage, hashes in then.items():
        made = now.get(stage, {})
        differing = [path for path, md5 in hashes.items() if made.get(path) != md5]
        said(f"{stage}: " + (f"DIFFERS in {', '.join(differing)}" if differing else "identical"))
        if differing and same:
            for path in (path for path in differing if path in made and (folder / path).exists()):
                for line in how_much(Past(hashes[path]), folder / path):
                    said(f"  {path}: {line}")
        same = same and not differing
    return same
