"""Releases inside a repository, with a real one of git, DVC and GTO: tags that DVC finds, and runs that are run again.

The graph is a small one of its own; `test_the_smoke_release_is_reproduced` takes the whole pipeline's.
"""

import json
import shutil
import signal
import subprocess

import pytest

from tests.conftest import BIN, ROOT, environment, make_project, run
from tests.releases import ABOUT, WHERE, make_checkpoint, release
from vlmr1.files import sha256
from vlmr1.release.registry import releases
from vlmr1.release.store import open_store

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
GRAPH = """
stages:
  grpo:
    cmd: python train.py
    deps: [data]
    params: [grpo]
    outs: [models/grpo]
    metrics: [metrics/grpo.json: {cache: false}]
  publish:
    cmd: python publish.py
    deps: [models/grpo]
    params: [publish]
    outs: [reports/published.json]
artifacts:
  ${publish.name}: {path: models/grpo, type: model}
"""
TRAIN = """
import json, os, pathlib
import numpy
from safetensors.numpy import save_file
from vlmr1.settings import read_yaml
steps = read_yaml(pathlib.Path("params.yaml"))["grpo"]["steps"]
noise = pathlib.Path(NOISE)  # what no dependency tells of
weight = len(pathlib.Path("data/list").read_text()) * steps + (float(noise.read_text()) if noise.is_file() else 0)
os.makedirs("models/grpo"), os.makedirs("metrics", exist_ok=True)
save_file({"w": numpy.full(4, weight, "float32")}, "models/grpo/model.safetensors")
pathlib.Path("models/grpo/config.json").write_text("{}")
pathlib.Path("metrics/grpo.json").write_text(json.dumps({"reward": weight}))
"""
PUBLISH = """
import json, pathlib
from vlmr1.provenance import commit, locked
from vlmr1.release.publish import publish
from vlmr1.release.store import open_store
from vlmr1.settings import read_yaml
params = read_yaml(pathlib.Path("params.yaml"))
told = params.pop("publish")
head, changed = commit()
lock = locked(read_yaml(pathlib.Path("dvc.lock")), read_yaml(pathlib.Path("dvc.yaml")))
about = ABOUT | {"params": params}
where = WHERE | {"commit": head, "dirty": bool(changed), "changed": changed, "dvc_lock": lock}
store = open_store(told["store"])
version = publish(store, told["name"], pathlib.Path("models/grpo"), about, where, lambda v: v, {})
pathlib.Path("reports").mkdir(exist_ok=True)
pathlib.Path("reports/published.json").write_text(json.dumps({"name": told["name"], "version": version}))
"""


def commit(folder):
    run([*GIT, "add", "-A"], folder)
    run([*GIT, "commit", "-q", "--allow-empty", "-m", "run"], folder)


def vlmr1(folder, *words, code=0):
    """What the command under test says in a folder."""
    command = [str(BIN / "python"), "-m", "vlmr1.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(template, tmp_path):
    """A copy of the repository in which the graph ran once."""
    return shutil.copytree(template, tmp_path / "project", symlinks=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository in which the graph ran once with 2 steps where 1 is committed, its data under `dvc add`."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "vlmr1").symlink_to(ROOT / "vlmr1")
    (folder / ".dvcignore").write_text("vlmr1\n")
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "train.py").write_text(TRAIN.replace("NOISE", repr(str(folder / "noise.log"))))
    about = json.dumps({"ABOUT": ABOUT, "WHERE": WHERE | {"hardware": {}, "packages": {}}})
    (folder / "publish.py").write_text(f"globals().update(__import__('json').loads({about!r}))\n{PUBLISH}")
    (folder / "params.yaml").write_text(
        "grpo: {steps: 1}\ntrained: {lora: null}\npublish: {name: toy, store: releases, license: mit, merge: null}\n"
    )
    (folder / ".gitignore").write_text("/releases/\n/models/\n/reports/\n/noise.log\n__pycache__/\n")
    (folder / "data").mkdir()
    (folder / "data/list").write_text("rows")
    run(["git", "init", "-q"], folder)
    run(["dvc", "init", "-q"], folder)
    run(["dvc", "add", "-q", "data"], folder)
    commit(folder)
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("steps: 1", "steps: 2"))
    run(["dvc", "repro", "-q"], folder)
    return folder


def test_a_release_is_a_tag_by_which_dvc_finds_the_model(project, tmp_path):
    assert "dvc.lock: not in HEAD" in vlmr1(project, "register", "toy@latest", code=1)
    commit(project)
    first = vlmr1(project, "register", "toy@latest")
    assert "tagged toy@v1.0.0" in first and vlmr1(project, "register", "toy@v1") == first
    assert "tagged toy#prod#1" in vlmr1(project, "promote", "toy@latest", "prod")
    # another run, published but not yet committed
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("steps: 2", "steps: 3"))
    run(["dvc", "repro", "-q"], project)
    assert "stage grpo is not as HEAD's dvc.lock" in vlmr1(project, "register", "toy@latest", code=1)
    assert "tagged" not in vlmr1(project, "promote", "toy@latest", "prod")
    commit(project)
    vlmr1(project, "register", "toy@latest")
    assert "tagged" not in vlmr1(project, "promote", "toy", "prod", "--back")  # GTO never left that one
    assert "tagged toy#prod#2" in vlmr1(project, "promote", "toy@v2", "prod", "--reason", "mended")
    assert "tagged" not in vlmr1(project, "promote", "toy@v2", "prod")  # GTO has it already
    found = releases(open_store(str(project / "releases")), "toy")
    for which, one in (("--rev=v1.0.0", found[0]), ("--stage=prod", found[1])):
        run(["dvc", "artifacts", "get", "-q", ".", "toy", which, "-o", str(tmp_path / which)], project)
        facts = one.manifest["files"]["model.safetensors"]
        assert sha256(tmp_path / which / "model.safetensors") == facts["sha256"]
    said = vlmr1(project, "promote", "toy", "prod", "--remove")  # GTO's goes from every version that ever had it
    assert f"toy#prod no longer stands for toy@{found[1].version}" in said and "tagged toy#prod!#3 toy#prod!#4" in said
    assert run(["gto", "show", "toy#prod", "--version"], project).strip() == ""


def test_a_release_is_run_again_and_compared(template, project, tmp_path):
    """First the same comes out, with the parameters that were changed beside the commit; then something else."""
    before = sorted(path.name for path in (project / "releases/toy").iterdir())
    shutil.rmtree(project / "models")  # nothing of it is needed
    run(["dvc", "remote", "add", "-q", "-d", "kept", "../remote"], project)
    run(["dvc", "push", "-q", "data.dvc"], project)
    (project / ".dvc/cache").rename(tmp_path / "cache")  # its inputs come from the remote then
    said = vlmr1(project, "reproduce", "toy@latest")
    shutil.rmtree(project / ".dvc/cache", ignore_errors=True)
    (tmp_path / "cache").rename(project / ".dvc/cache")
    assert "brought data" in said and "grpo: identical" in said and said.rstrip().endswith(": identical")
    assert sorted(path.name for path in (project / "releases/toy").iterdir()) == before
    assert len(run(["git", "worktree", "list"], project).splitlines()) == 1
    (template / "noise.log").write_text("0.25")
    said = vlmr1(project, "reproduce", "toy@latest", "--keep", str(tmp_path / "kept"), code=1)
    assert "grpo: DIFFERS in metrics/grpo.json, models/grpo" in said and "NOT identical" in said
    assert "models/grpo: 1 of 2 files differ, 0 are gone, 0 are new" in said
    assert "model.safetensors: weights differ by at most 0.25, in w" in said
    assert "figures differ: reward was 8, is 8.25" in said
    assert (tmp_path / "kept/project/models/grpo/model.safetensors").is_file()
    assert not (tmp_path / "kept/project/.dvc/config.local").exists()  # nor the credentials in it


def test_a_run_that_is_stopped_leaves_nothing_and_hooks_are_not_run(project, tmp_path):
    (tmp_path / "tmp").mkdir()
    hook = project / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (project / "données.txt").write_text("x")
    run(["dvc", "add", "-q", "données.txt"], project)
    commit(project)
    (project / "train.py").write_text("import time; time.sleep(99)\n")  # of another commit than the release's
    checkpoint = make_checkpoint(tmp_path / "checkpoint", 1024)
    commit(project)
    head = run(["git", "rev-parse", "HEAD"], project).strip()
    params = {"params": {"publish": {}, "trained": {"lora": None}}}
    release(str(tmp_path / "store"), checkpoint, about=ABOUT | params, where=WHERE | {"commit": head, "packages": {}})
    words = ["-u", "-m", "vlmr1.cli", "reproduce", "toy@latest", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(
        [str(BIN / "python"), *words],
        cwd=project,
        env=environment(TMPDIR=str(tmp_path / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "Running stage 'grpo'" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, "".join(said)
    assert "brought données.txt\n" in said
    assert not list((tmp_path / "tmp").iterdir()) and len(run(["git", "worktree", "list"], project).splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dirty": True, "changed": ["params.yaml", "train.py"]}, "with changes to train.py that no commit has"),
        ({"commit": None}, "commit was not recorded"),
        ({"commit": "d" * 40}, "is not in this repository"),
    ],
)
def test_what_cannot_be_had_again_is_said_before_anything_runs(project, tmp_path, changed, message):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", 1024)
    release(str(tmp_path / "store"), checkpoint, where=WHERE | changed)
    said = vlmr1(project, "reproduce", "toy@latest", "--store", str(tmp_path / "store"), code=1)
    assert message in said and "running" not in said and "Traceback" not in said


@pytest.mark.slow
def test_the_smoke_release_is_reproduced(tmp_path):
    folder = make_project(tmp_path)
    run(["dvc", "repro"], folder)
    said = run(["vlmr1", "reproduce", "smoke-rec@latest"], folder)
    assert said.count(": identical") == 13 and "DIFFERS" not in said
