"""The retraining's own copy of the project: a clone in `.retrain`, so that nobody's working tree is touched.

It shares DVC's cache and remotes with the project and keeps its outputs between runs. Relative stores mean the
project's: a link stands for them in the clone. What a retraining leaves comes back as a branch, pushed into the
project's repository; its checkout, index and present branch stay as they are.
Left out on purpose: cloning from elsewhere than the project.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from flows import running
from vlmr1.recipes import apply
from vlmr1.scrubbed import scrubbed

PLACE = ".retrain"
TRANSIENT = re.compile(  # what stores, networks and name servers say, as DVC repeats it; a bare number may be a hash's
    r"connect(ion|timeout)|could not connect|timed out|timeout|temporar|slow ?down|throttl|unreachable|no route to host"
    r"|name resolution|nodename nor servname|internal ?(server )?error|service ?unavailable|bad gateway|\(50[0234]\)",
    re.IGNORECASE,
)
REMEDY = "git config user.name NAME; git config user.email ADDRESS"


class CommandFailed(RuntimeError):
    """A command failed; the message has its last words."""


class CommandFailedForNow(CommandFailed):
    """A command failed at a store or a network, which may mend itself."""


def call(*command: str, folder: Path | None = None) -> str:
    """A command's output. Raises CommandFailed, or CommandFailedForNow."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        words = scrubbed(" ".join(done.stdout.split()))[-600:]
        for_now = command[0] == "dvc" and TRANSIENT.search(words)
        raise (CommandFailedForNow if for_now else CommandFailed)(
            f"{scrubbed(' '.join(command[:3]))} failed: {words or f'exit code {done.returncode}, and no word why'}"
        )
    return done.stdout.strip()


@contextmanager
def copy_of(project: Path, revision: str | None, said: Callable[[str], None]) -> Iterator[str]:
    """The clone, at a revision (the project's present commit), as working directory for as long as the block runs.
    Yields the commit.

    One retraining at a time has it; another waits. Raises ValueError for what is no repository or no revision of it,
    and where git does not know who commits.
    """
    if not (project / ".git").exists() or not (project / "dvc.yaml").is_file():
        raise ValueError(f"{project}: a git repository with a dvc.yaml is needed; run it from the project's folder")
    clone = project / PLACE
    with _alone(clone, said):
        commit = _commit(project, revision)
        if not (clone / ".git").exists():
            call("git", "clone", "--quiet", "--no-checkout", str(project), str(clone))
        # The commit by itself, too: none of the project's branches need have it, as where a server checked it out.
        any_commit = "--upload-pack=git -c uploadpack.allowAnySHA1InWant=true upload-pack"
        call("git", "fetch", "--quiet", "--prune", "origin", folder=clone)
        call("git", "fetch", "--quiet", any_commit, "origin", commit, folder=clone)
        for key in ("user.name", "user.email"):
            value = call("git", "config", "--default", "", "--get", key, folder=project)
            if not value:
                raise ValueError(f"git does not know who commits: {REMEDY}")
            call("git", "config", key, value, folder=clone)
        call("git", "checkout", "--quiet", "--force", "--detach", commit, folder=clone)
        call("git", "clean", "--quiet", "--force", "-d", folder=clone)  # what git ignores stays: outputs, work
        _share(project, clone)
        said(f"{PLACE} is at {commit[:12]}")
        with chdir(clone):
            yield commit


def _commit(project: Path, revision: str | None) -> str:
    try:
        return call(
            "git", "rev-parse", "--verify", "--end-of-options", f"{revision or 'HEAD'}^{{commit}}", folder=project
        )
    except CommandFailed:
        raise ValueError(f"revision {revision or 'HEAD'}: no commit of {project}") from None


def check(project: Path, revision: str | None, recipe: str | None, sets: list[str]) -> None:
    """Raises ValueError for a revision, a recipe or sets that a retraining would stop at. Leaves nothing behind."""
    commit = _commit(project, revision)
    with tempfile.TemporaryDirectory() as folder:
        call("git", "archive", "--format=zip", f"--output={folder}/tree.zip", commit, folder=project)
        shutil.unpack_archive(f"{folder}/tree.zip", folder)
        with chdir(folder):
            lay_over(project, recipe, sets)


def lay_over(project: Path, recipe: str | None, sets: list[str]) -> list[str]:
    """Lay recipe and sets over this folder's params.yaml, as committed. Returns a line for each changed key.

    Raises ValueError, which calls a fault of `sets` so.
    """
    if recipe is not None and not Path(recipe).is_file() and (project / recipe).is_file():
        raise ValueError(f"{recipe}: not in the commit that is retrained on; commit it")
    try:
        return apply(None if recipe is None else Path(recipe), sets)
    except ValueError as error:  # in a retraining's words: no option -S, and no other recipe lies over params.yaml
        lines = [re.sub(r"^-S ", "sets: ", line) for line in str(error).splitlines()]
        raise ValueError("\n".join(line for line in lines if "git checkout" not in line)) from None


@contextmanager
def _alone(clone: Path, said: Callable[[str], None]) -> Iterator[None]:
    """One retraining at a time. The lock goes with its process, and with a stage that goes on after it was killed."""
    path = clone.with_name(f"{clone.name}.lock")
    with path.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    said(f"another retraining has {clone.name}; waiting for its end")
                    told = True
                time.sleep(1)
        running.shared.add(file.fileno())
        try:
            yield
        finally:
            running.shared.discard(file.fileno())


def _share(project: Path, clone: Path) -> None:
    """Give the clone the project's cache, remotes and credentials, by its local configuration alone."""
    from dvc.repo import Repo

    with Repo(str(project)) as theirs:
        cache = theirs.cache.local.path
        remotes = {name: dict(remote) for name, remote in theirs.config["remote"].items()}
        default = theirs.config["core"].get("remote")
    with Repo(str(clone)) as ours, ours.config.edit("local") as local:
        local["cache"]["dir"] = cache
        local["remote"] = remotes
        if default is not None:
            local["core"]["remote"] = default
    (clone / ".dvc" / "config.local").chmod(0o600)


def share_store(project: Path, store: str) -> None:
    """Let a relative store of releases, as params say it, mean the project's in the clone too.

    Raises ValueError for one that leaves the project.
    """
    path = PurePosixPath(store)
    if urlparse(store).scheme or path.is_absolute() or store.startswith("~"):
        return
    if ".." in path.parts:
        raise ValueError(f"publish.store: {store} leaves the project; give an absolute path")
    there = project / store
    there.mkdir(parents=True, exist_ok=True)
    link = Path(store)
    if link.is_symlink():
        link.unlink()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(there, link.parent.resolve()))
    exclude = Path(".git/info/exclude")
    line = f"/{path}"
    if line not in (known := exclude.read_text() if exclude.is_file() else "").splitlines():
        exclude.write_text(f"{known.rstrip()}\n{line}\n".lstrip())


def pull_data(said: Callable[[str], None]) -> list[str]:
    """Bring tracked data up to date; the names of the imports that changed.

    Imports are asked at their origin, other tracked data is fetched from the remote where it is not at hand. Raises
    CommandFailed.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        tracked = [stage for stage in repo.index.stages if not stage.cmd]
        imports = {stage.relpath: stage for stage in tracked if stage.is_import}
        others = [stage.relpath for stage in tracked if not stage.is_import]
        remote = repo.config["core"].get("remote")
        for name, stage in imports.items():
            for dep in stage.deps:
                if not urlparse(str(dep.def_path)).scheme and not Path(dep.def_path).is_absolute():
                    raise ValueError(
                        f"{name}: its origin {dep.def_path} is a relative path, which means something else in"
                        f" {PLACE}; import it by an absolute one"
                    )
    if not tracked:
        said("no data is tracked by DVC: the data is what params.yaml draws or points at")
    changed = []
    for name in imports:
        before = Path(name).read_bytes()
        call("dvc", "--wait-for-lock", "update", name)
        if Path(name).read_bytes() != before:
            changed.append(name.removesuffix(".dvc"))
    if imports:
        said(f"imports: {', '.join(imports)}; " + (f"new: {', '.join(changed)}" if changed else "nothing new"))
    if others:
        call("dvc", "--wait-for-lock", "checkout", "--quiet", "--allow-missing", *others)
        if remote is not None:
            call("dvc", "--wait-for-lock", "pull", *others)  # --quiet would keep the reason of a failure to itself
        said(f"tracked data: {', '.join(others)}" + (f", from {remote}" if remote else "; no remote is set"))
    call("dvc", "--wait-for-lock", "checkout", "--quiet", "--force", "--allow-missing")
    return changed


def save_branch(name: str, branch: str, message: str) -> str:
    """Save the clone's state as an experiment, make a branch of it in the project; the commit.

    A branch that is there already stands for the same state, and is left as it is.
    """
    call("git", "fetch", "--quiet", "--prune", "origin")
    with suppress(CommandFailed):
        return call("git", "rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{branch}")
    with suppress(CommandFailed):  # left by a run that was killed before it had pushed it
        call("git", "branch", "--quiet", "-D", branch)
    new = call("git", "ls-files", "--others", "--exclude-standard").splitlines()  # dvc.lock and metrics of a first run
    also = [word for path in new for word in ("--include-untracked", path)]
    call("dvc", "--wait-for-lock", "exp", "save", "--force", "--name", name, "--message", message, *also)
    call("dvc", "exp", "branch", name, branch)
    call("git", "push", "--quiet", "origin", f"refs/heads/{branch}:refs/heads/{branch}")
    commit = call("git", "rev-parse", branch)
    call("git", "branch", "--quiet", "-D", branch)  # the project has it; a name may come again after its removal there
    call("dvc", "exp", "remove", name)
    return commit


def push_data(said: Callable[[str], None]) -> None:
    """Push what the run made to the default remote, where there is one. Raises CommandFailed."""
    from dvc.repo import Repo

    with Repo() as repo:
        remote = repo.config["core"].get("remote")
    if remote is None:
        said("no DVC remote is set: the run's outputs are in the project's cache alone")
        return
    *_, last = ("", *call("dvc", "--wait-for-lock", "push").splitlines())
    said(f"pushed to {remote}: {last or 'nothing'}")
