"""Pulling: what lands, what is refused, what is gone on with, and how little it needs; from a folder and a bucket."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.releases import SOME, make_checkpoint, other, release
from vlmr1.release.pull import pull
from vlmr1.release.registry import resolve
from vlmr1.release.store import open_store
from vlmr1.work import fingerprint_of


@pytest.fixture
def checkpoint(tmp_path):
    return make_checkpoint(tmp_path / "checkpoint")


def quiet(_):
    pass


def damage(url, key, data, tmp_path):
    """Put other bytes at a key, as only somebody with the store's own tools can."""
    if url.startswith("s3://"):
        import boto3

        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=data)
    else:
        (tmp_path / "store" / key).write_bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"short", "promised"), (b"x" * 26_000, "promised"), (b"x" * 25_600, r"model\.safetensors differs")],
)
def test_a_damaged_file_is_named_and_nothing_lands(store_url, checkpoint, tmp_path, data, message):
    version = release(store_url, checkpoint)
    damage(store_url, f"toy/{version}/model.safetensors", data, tmp_path)
    with pytest.raises(ValueError, match=message):
        pull(open_store(store_url), f"toy@{version}", tmp_path / "landed", quiet)
    assert not (tmp_path / "landed").exists()
    assert not list(tmp_path.glob(".landed*/files/model*"))  # what was right is kept for the next pull, and this is not
    damage(store_url, f"toy/{version}/model.safetensors", (checkpoint / "model.safetensors").read_bytes(), tmp_path)
    pull(open_store(store_url), f"toy@{version}", tmp_path / "landed", quiet)
    assert not list(tmp_path.glob(".landed*"))


def test_a_byte_that_was_changed_on_the_way_costs_one_file_fetched_again(store_url, checkpoint, tmp_path, monkeypatch):
    version, store = release(store_url, checkpoint), open_store(store_url)
    real, asked = type(store).blocks, []

    def flipped(self, key, start, stop, size):
        asked.append(key.rpartition("/")[2])
        for block in real(self, key, start, stop, size):
            yield b"x" * len(block) if asked.count("model.safetensors") == 1 and "model" in key else block

    monkeypatch.setattr(type(store), "blocks", flipped)
    pull(store, f"toy@{version}", tmp_path / "landed", quiet)
    assert sorted(asked) == ["README.md", "config.json", "model.safetensors", "model.safetensors"]


def test_pull_refuses_a_folder_that_holds_something_or_is_a_link(store_url, checkpoint, tmp_path):
    version = release(store_url, checkpoint)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in ("mine", "link"):
        with pytest.raises(ValueError, match="already holds something"):
            pull(open_store(store_url), f"toy@{version}", tmp_path / target, quiet)
    assert (tmp_path / "mine/precious").read_text() == "x"
    (tmp_path / "empty").mkdir()
    pull(open_store(store_url), f"toy@{version}", tmp_path / "empty", quiet)


def test_the_same_again_is_verified_and_not_fetched_and_another_is_refused(
    store_url, checkpoint, tmp_path, monkeypatch
):
    store, target, said = open_store(store_url), tmp_path / "landed", []
    one, two = release(store_url, checkpoint), release(store_url, checkpoint, other(a=2))
    pull(store, f"toy@{one}", target, quiet)
    before = fingerprint_of(target)
    monkeypatch.setattr(type(store), "blocks", None)  # nothing of a file may be asked for
    (target / "notes.txt").write_text("mine")
    for wanted in (one, "v1"):
        assert pull(store, f"toy@{wanted}", target, said.append)["version"] == one
    assert said == [f"nothing to fetch: {target} holds toy@{one}, every byte as its manifest says"] * 2
    assert fingerprint_of(target).items() >= before.items()
    with pytest.raises(ValueError, match=rf"landed holds toy@{one}; toy@{two} goes to a folder of its own"):
        pull(store, "toy@latest", target, quiet)
    (target / "model.safetensors").write_bytes(b"x" * 25_600)
    with pytest.raises(ValueError, match=r"but model\.safetensors was changed; remove .*landed and"):
        pull(store, "toy@v1", target, quiet)
    (target / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"but model\.safetensors is gone"):
        pull(store, "toy@v1", target, quiet)
    (target / "manifest.json").write_text('{"name": "toy"}')
    with pytest.raises(ValueError, match="already holds something, and no release"):
        pull(store, "toy@v1", target, quiet)


def test_a_pull_that_was_stopped_goes_on(store_url, checkpoint, tmp_path, monkeypatch):
    import vlmr1.release.pull as module

    monkeypatch.setattr(module, "RANGE", 4096)
    version, store = release(store_url, checkpoint), open_store(store_url)
    real, asked = type(store).blocks, []

    def stopping(self, key, start, stop, size):
        asked.append((key.rpartition("/")[2], start))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(self, key, start, stop, size)

    monkeypatch.setattr(type(store), "blocks", stopping)
    monkeypatch.setattr(type(store), "side_by_side", 1)
    with pytest.raises(KeyboardInterrupt):
        pull(store, "toy@latest", tmp_path / "landed", quiet)
    assert not (tmp_path / "landed").exists() and (tmp_path / f".landed.{version}.tmp").is_dir()
    first = asked[:3]
    pull(store, "toy@latest", tmp_path / "landed", quiet)
    assert not set(first) & set(asked[4:])  # what had come was not asked for again
    assert fingerprint_of(checkpoint).items() <= fingerprint_of(tmp_path / "landed").items()
    assert not list(tmp_path.glob(".landed*"))


NEEDED = ["boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3", "yaml", "ruamel", "pydantic"]
NEEDED += ["pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"]


def test_pulling_needs_neither_torch_nor_git_nor_dvc(store_url, tmp_path, checkpoint):
    """In an environment that has nothing else: other packages are not there, and no program is on the path."""
    release(store_url, checkpoint)
    (tmp_path / "packages").mkdir()
    for name in [*NEEDED, "vlmr1"]:
        for path in (ROOT / "vlmr1",) if name == "vlmr1" else sites(name):
            (tmp_path / "packages" / path.name).symlink_to(path)
    aws = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    environment = aws | {"PYTHONPATH": str(tmp_path / "packages"), "PATH": "/nonexistent", "HOME": str(tmp_path)}
    for words in (["releases"], ["pull", "toy@latest", "--to", "landed"]):
        code = f"from vlmr1.cli import main; main({[*words, '--store', store_url]})"
        command = [sys.executable, "-S", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert words[0] == "pull" or "Acc@0.5 0.500 [0.400, 0.600] n 100" in done.stdout
    assert (tmp_path / "landed/model.safetensors").is_file()


def sites(name):
    """The folder or file of an installed package, none where it is not installed."""
    found = find_spec(name)
    return [Path(next(iter(found.submodule_search_locations or ()), found.origin))] if found is not None else []


@pytest.mark.parametrize(
    "wanted",
    ["toy", "toy@", "../x@v", "toy@../..", "toy@nosuch", "toy@v0", "toy#", f"toy@{SOME}"],
)
def test_a_name_that_is_none_is_refused(tmp_path, wanted):
    with pytest.raises(ValueError, match=r"NAME@VERSION|no release"):
        pull(open_store(str(tmp_path)), wanted, tmp_path / "landed", quiet)


def test_resolving_looks_nowhere_for_a_version(tmp_path):
    assert resolve(open_store(str(tmp_path)), f"toy@{SOME}") == (
        "toy",
        SOME,
    )
