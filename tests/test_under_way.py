"""params.yaml beneath a run stays as it is: a real one of DVC, its lock, and the notes of one that was killed."""

import fcntl
import json
import os
import subprocess
import time

import pytest

from tests.conftest import default_params, environment, run
from vlmr1.recipes import apply
from vlmr1.under_way import between_runs

STAGE = "stages: {wait: {cmd: 'touch begun; while [ ! -f go ]; do sleep 0.05; done; touch out', outs: [out]}}\n"


def test_a_recipe_waits_for_the_end_of_a_run(tmp_path):
    (tmp_path / "params.yaml").write_text(default_params())
    (tmp_path / "dvc.yaml").write_text(STAGE)
    apply(None, ["grpo.seed=2"], tmp_path / "params.yaml")  # DVC was never here
    run(["dvc", "init", "-q", "--no-scm"], tmp_path)
    before = (tmp_path / "params.yaml").read_bytes()
    running = subprocess.Popen(["dvc", "repro", "-q"], cwd=tmp_path, env=environment())
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(ValueError, match=rf"repro -q`, process {running.pid}, is under way here.*wait for its end"):
            apply(None, ["grpo.seed=3"], tmp_path / "params.yaml")
        assert (tmp_path / "params.yaml").read_bytes() == before
    finally:
        (tmp_path / "go").touch()
        assert running.wait(60) == 0
    assert apply(None, ["grpo.seed=3"], tmp_path / "params.yaml") == ["grpo.seed: 3"]


def test_what_dvc_left_is_told_from_what_it_holds(tmp_path):
    place = tmp_path / ".dvc/tmp"
    place.mkdir(parents=True)
    (place / "lock").touch()
    with (place / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="a command of DVC is under way"), between_runs(tmp_path):
            raise AssertionError("not to be reached")
    dead = subprocess.Popen(["true"])
    dead.wait()
    noted = {"write": {"/p/models": {"pid": dead.pid, "cmd": "dvc repro"}}, "read": {}}
    (place / "rwlock").write_text(json.dumps(noted))
    with between_runs(tmp_path), (place / "lock").open() as file, pytest.raises(BlockingIOError):  # it was killed
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and none can begin meanwhile
    noted["read"] = {"/p/data": [{"pid": os.getpid(), "cmd": "dvc repro grpo"}]}
    (place / "rwlock").write_text(json.dumps(noted))
    with pytest.raises(ValueError, match=r"`dvc repro grpo`, process \d+, is under way"), between_runs(tmp_path):
        raise AssertionError("not to be reached")
    (place / "rwlock").write_text('{"wri')
    with pytest.raises(ValueError, match="a command of DVC is under way"), between_runs(tmp_path):
        raise AssertionError("not to be reached")
