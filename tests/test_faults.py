"""The short form of `benchmarks/faults.py`: a few faults of each kind that costs seconds; the mends they led to."""

import json
import logging
import random
import resource
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import vlmr1.release.pull as pulling
from benchmarks import fault_flow, fault_store, faults
from tests.releases import make_checkpoint, release
from vlmr1.errors import no_room
from vlmr1.release.log import read_log
from vlmr1.release.registry import promote, roll_back
from vlmr1.release.store import open_store


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with fault_store.bench(tmp_path_factory.mktemp("faults")) as bench:
        yield bench


@pytest.mark.parametrize(
    "kind",
    ["answer lost", "hangs", "byte flipped", "upload flipped", "killed", "disk full", "clock moved", "two at once"],
)
def test_after_a_fault_the_repeated_run_ends_as_if_there_had_been_none(bench, kind):
    assert fault_store.strike(bench, kind, random.Random(f"3/{kind}")) == []


def test_a_release_that_differs_is_told_of(bench, tmp_path):
    """The check itself: without this, two hundred identical ends would say nothing."""
    with fault_store.place(bench, "folder") as (where, to):
        bench.do("publish", where, to)
        bench.do("pull", where, to)
        (model,) = bench.folder.glob("*/store/toy/*/model.safetensors")
        model.write_bytes(model.read_bytes()[:-1] + b"x")
        assert "is visible, and model.safetensors" in fault_store.visible(bench.direct(where))[0]
        assert "the store differs" in fault_store.ended(bench, "pull", "folder", where, to)[0]


def test_an_entry_whose_answer_was_lost_is_noted_once(bench, tmp_path, monkeypatch):
    """The server has it and says nothing; asked again it says that the number is taken, by our own entry."""
    for key, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": bench.url}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with fault_store.place(bench, "s3") as (where, _):
        version = release(where, make_checkpoint(tmp_path / "checkpoint"))
        lost = iter(["after"])
        bench.faults.lose = lambda method, path: next(lost, None) if method == "PUT" and "/log/" in path else None
        promote(open_store(where), "toy", version, "prod")
        assert next(lost, None) is None
        assert [entry.event for entry in read_log(open_store(where), "toy")] == ["published", "promoted"]
        with pytest.raises(ValueError, match="no earlier version"):
            roll_back(open_store(where), "toy", "prod")


def test_the_table_counts_what_was_identical():
    found = [
        {"group": "store", "kind": "killed", "seconds": 1.0, "wrong": []},
        {"group": "store", "kind": "killed", "seconds": 2.0, "wrong": ["differs"]},
    ]
    assert "| store | killed | 2 | 1 | 3 |" in faults.table(found) and "| | all | 2 | 1 | 3 |" in faults.table(found)
    assert "| store | hangs | 0 | 0 | 0 |" in faults.table(found)  # every kind, one that was never done too
    assert json.dumps(faults.faults_of("store", 3, 1)[0][0]) == '"error 500"'


@pytest.mark.parametrize("wrong", [[], ["differs"]])
def test_the_script_writes_all_it_found_even_where_it_is_stopped(tmp_path, monkeypatch, capsys, wrong):
    """The record in docs is this file and no other: each fault with its seconds and what was wrong, and all seconds."""
    done = []

    @contextmanager
    def bench(folder):
        yield SimpleNamespace(tmpfs=True)

    def strike(made, kind, rng):
        done.append(kind)
        if len(done) == 3:
            raise KeyboardInterrupt
        return wrong

    monkeypatch.setitem(faults.MODULES, "flow", SimpleNamespace(KINDS=("a", "b"), bench=bench, strike=strike))
    there = tmp_path / "faults.json"
    monkeypatch.setattr("sys.argv", ["faults", "--only", "flow", "--faults", "3", "--seed", "7", "--json", str(there)])
    with pytest.raises(KeyboardInterrupt):
        faults.main()
    found = json.loads(there.read_text())
    assert [(one["kind"], one["wrong"]) for one in found["faults"]] == [("a", wrong), ("b", wrong)]
    assert all("seconds" in one for one in found["faults"]) and {"machine", "seconds", "command"} <= set(found)
    assert found["seed"] == 7 and "2 of 3 faults" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stage under a flow killed", "worker and run killed"])
def test_a_retraining_that_is_struck_ends_as_if_it_had_not_been(kind, tmp_path_factory):
    with fault_flow.bench(tmp_path_factory.mktemp("flow")) as made:
        assert fault_flow.strike(made, kind, random.Random(f"3/{kind}")) == []


def test_a_pull_whose_folder_another_has_landed_meanwhile_fetches_nothing(bench, tmp_path, monkeypatch):
    with fault_store.place(bench, "folder") as (where, to):
        bench.do("publish", where, to)
        alone = pulling._alone

        @contextmanager
        def late(half):
            monkeypatch.setattr(pulling, "_alone", alone)
            pulling.pull(open_store(where), "toy@latest", to, print)
            with alone(half):
                yield

        monkeypatch.setattr(pulling, "_alone", late)
        said = []
        pulling.pull(open_store(where), "toy@latest", to, said.append)
        assert [line.partition(":")[0] for line in said] == ["nothing to fetch"] and not list(to.parent.glob(".*.tmp"))
        assert fault_store.ended(bench, "pull", "folder", where, to) == []


def test_a_full_disk_is_known_whoever_writes(tmp_path):
    """A limit on the size of files stands for the disk; torch and safetensors raise errors of their own."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(100_000)}
    writers = (
        lambda: save_file(tensors, tmp_path / "a"),
        lambda: torch.save(tensors, tmp_path / "b"),
        lambda: (tmp_path / "c").write_bytes(b"x" * 400_000),
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in writers:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(Exception, match=r".") as told:
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert no_room(told.value), told.value
    assert not no_room(ValueError("something else"))


def test_a_saved_checkpoint_does_not_tell_whether_the_hub_could_be_reached(tiny, tmp_path):
    pytest.importorskip("torch")
    from vlmr1.families import load_family

    load_family(tiny[0], 112 * 112).tokenizer.save_pretrained(tmp_path)
    assert "local_files_only" not in (tmp_path / "tokenizer_config.json").read_text()


def test_a_stage_whose_run_was_killed_keeps_the_clone_until_it_ends(tmp_path, monkeypatch):
    from flows import checkout, running

    monkeypatch.setattr(running, "get_run_logger", lambda: logging.getLogger())
    said = []
    with checkout._alone(tmp_path / ".retrain", said.append):
        stage = threading.Thread(target=running.run_logged, args=(["sleep", "2"],))
        stage.start()
        while not running._running:
            time.sleep(0.01)
    with checkout._alone(tmp_path / ".retrain", said.append):
        assert said == ["another retraining has .retrain; waiting for its end"]
    stage.join()
