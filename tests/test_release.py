"""Publishing, against a folder and against a real S3 server over HTTP; pulling is in `test_pull.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT
from tests.releases import ABOUT, SCORE, SOME, WHERE, make_checkpoint, other, release
from vlmr1.release.card import model_card
from vlmr1.release.log import read_log
from vlmr1.release.manifest import SCHEMA, schema
from vlmr1.release.publish import clean, publish
from vlmr1.release.pull import pull
from vlmr1.release.registry import names, releases
from vlmr1.release.store import FolderStore, open_store
from vlmr1.work import fingerprint_of


@pytest.fixture
def checkpoint(tmp_path):
    return make_checkpoint(tmp_path / "checkpoint")


def quiet(_):
    pass


def test_what_is_published_is_pulled_byte_for_byte(store_url, checkpoint, tmp_path):
    picture = tmp_path / "accuracy.png"
    picture.write_bytes(b"a picture")
    version = release(store_url, checkpoint, **{"pictures/accuracy.png": picture})
    for wanted in (version, "latest", "v1", "v1.0.0"):
        target = tmp_path / "deep" / wanted
        manifest = pull(open_store(store_url), f"toy@{wanted}", target, quiet)
        assert manifest["version"] == version and manifest["where"] == {**WHERE, "parent": None}
        landed = fingerprint_of(target)
        assert fingerprint_of(checkpoint).items() <= landed.items()
        assert set(landed) - set(fingerprint_of(checkpoint)) == {"README.md", "manifest.json", "pictures/accuracy.png"}
        assert (target / "README.md").read_text() == f"toy@{version}"
        assert not list(target.parent.glob(".*"))  # nothing is left beside it


def test_publishing_again_changes_nothing_and_other_scores_are_another_version(store_url, checkpoint):
    store = open_store(store_url)
    version = release(store_url, checkpoint)
    before = store.read(f"toy/{version}/manifest.json", 1 << 20)
    elsewhere = WHERE | {"commit": "d" * 40, "hardware": {}}
    assert release(store_url, checkpoint, where=elsewhere) == version
    assert store.read(f"toy/{version}/manifest.json", 1 << 20) == before
    notes = [(entry.event, entry.reason) for entry in read_log(store, "toy")]
    assert notes == [("published", None), ("made again", f"commit {'d' * 40}, changed: nothing")]
    assert release(store_url, checkpoint, where=elsewhere) == version and len(read_log(store, "toy")) == 2
    assert release(store_url, checkpoint, other(a=2)) != version
    assert len(releases(store, "toy")) == 2 and names(store) == ["toy"]


def test_an_interrupted_upload_is_invisible_goes_on_when_repeated_and_can_be_cleaned(
    store_url, checkpoint, tmp_path, monkeypatch
):
    store, sent = open_store(store_url), []
    real = type(store).put

    def dying(self, path, key, digest):
        if sent:
            raise KeyboardInterrupt
        sent.append(key)
        real(self, path, key, digest)

    monkeypatch.setattr(type(store), "put", dying)
    with pytest.raises(KeyboardInterrupt):
        release(store_url, checkpoint)
    assert releases(store, "toy") == [] and names(store) == []
    with pytest.raises(ValueError, match="no release"):
        pull(store, "toy@latest", tmp_path / "landed", quiet)
    monkeypatch.setattr(type(store), "put", real)
    assert clean(store, "toy") == {}  # young: somebody may be publishing it
    assert list(clean(store, "toy", age=-60).values()) == [[sent[0].split("/", 2)[2]]]
    assert store.children("toy") == []
    version = release(store_url, checkpoint)
    assert pull(store, f"toy@{version}", tmp_path / "landed", quiet)["files"]
    assert clean(store, "toy", age=-60) == {}  # what is whole stays


def test_a_publisher_killed_outright_is_continued(tmp_path):
    """SIGKILL while a file is copied: nothing is visible, what was whole stays, no scrap remains after the repeat."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", 64 << 20)
    code = f"""
import time
from pathlib import Path
from tests.releases import release
from vlmr1.release import store
real = store.to_disk
def slow(path):
    if path.name.startswith(".model.safetensors"):
        time.sleep(60)
    real(path)
store.to_disk = slow
release({str(tmp_path / "store")!r}, Path({str(checkpoint)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 30
    begun, whole = "store/toy/*/.model*.tmp", "store/toy/*/empty.txt"
    while not (list(tmp_path.glob(begun)) and list(tmp_path.glob(whole))) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("store/toy/*/empty.txt")) and releases(open_store(str(tmp_path / "store")), "toy") == []
    version = release(str(tmp_path / "store"), checkpoint)
    left = {path.name for path in (tmp_path / "store/toy" / version).iterdir()}
    card = {name for name in left if len(name) == 16}  # its hash
    assert len(card) == 1 and left - card == {"empty.txt", "manifest.json", "model.safetensors", "sub"}


def cut_off(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("age", [3600.0, -60.0])  # as `clean` asks; and where it had looked before the mark was there
def test_cleaning_beside_a_resumed_publication_leaves_a_whole_release(tmp_path, checkpoint, monkeypatch, age):
    store, real = open_store(str(tmp_path / "store")), FolderStore.put_new
    monkeypatch.setattr(FolderStore, "put_new", cut_off)
    with pytest.raises(KeyboardInterrupt):
        release(store.url, checkpoint)
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (0, 0))

    def racing(self, data, key):
        if key.endswith("manifest.json"):
            assert bool(clean(store, "toy", age)) == (age < 0)
        real(self, data, key)

    monkeypatch.setattr(FolderStore, "put_new", racing)
    version = release(store.url, checkpoint)
    pull(store, f"toy@{version}", tmp_path / "landed", quiet)
    (tmp_path / "store/toy" / version / "model.safetensors").unlink()
    release(store.url, checkpoint)  # publishing again mends what is gone
    pull(store, f"toy@{version}", tmp_path / "again", quiet)
    assert not list((tmp_path / "store").rglob(".*"))


def test_a_file_that_changes_while_it_is_published_makes_no_release(store_url, checkpoint, monkeypatch):
    def card(_):  # after the files are hashed, before they are sent
        (checkpoint / "model.safetensors").write_bytes(b"x" * 25_600)
        return "card"

    with pytest.raises(ValueError, match=r"model\.safetensors: was changed while it was published"):
        publish(open_store(store_url), "toy", checkpoint, ABOUT, WHERE, card, {})
    assert releases(open_store(store_url), "toy") == []


def test_a_manifest_is_never_overwritten(store_url):
    store = open_store(store_url)
    store.put_new(b"one", "toy/v/manifest.json")
    with pytest.raises(FileExistsError):
        store.put_new(b"two", "toy/v/manifest.json")
    assert store.read("toy/v/manifest.json", 10) == b"one"
    with pytest.raises(ValueError, match="larger than 2 bytes"):
        store.read("toy/v/manifest.json", 2)


def test_two_publishers_at_once_make_one_version(store_url, checkpoint, tmp_path):
    """From different commits, so with different cards: what is pulled is whole, and one's or the other's."""
    store = open_store(store_url)

    def one(i):
        where = WHERE | {"commit": str(i) * 40}
        return publish(store, "toy", checkpoint, ABOUT, where, lambda version: f"by {i}", {})

    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(one, range(4)))
    (version,) = versions
    assert [r.version for r in releases(store, "toy")] == [version]
    manifest = pull(store, "toy@latest", tmp_path / "landed", quiet)
    assert (tmp_path / "landed/README.md").read_text() == f"by {manifest['where']['commit'][0]}"


def test_the_published_schema_is_that_of_the_models(checkpoint, tmp_path):
    import jsonschema

    assert json.loads(SCHEMA.read_text()) == schema()
    version = release(str(tmp_path / "store"), checkpoint)
    manifest = json.loads((tmp_path / "store/toy" / version / "manifest.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(manifest)
    del manifest["where"]["packages"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(manifest)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_the_card_has_the_hubs_metadata(kind):
    from huggingface_hub import ModelCard

    base = {"kind": "hub", "model": "org/base", "revision": "a" * 40, "sha256": "0" * 64}
    about = ABOUT | {"kind": kind, "base": base, "scores": {"in: domain": SCORE}}
    card = ModelCard(model_card("toy", SOME, "apache-2.0", about, WHERE, ["pictures/accuracy.png"]))
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0" and data["base_model"] == "org/base"
    assert data["library_name"] == {"model": "transformers", "adapter": "peft"}[kind]
    assert data["pipeline_tag"] == "image-text-to-text" and "grpo" in data["tags"]
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_name, result.metric_value) == ("in: domain", "Acc@0.5", 0.5)
    assert "(pictures/accuracy.png)" in card.text and "## Limits" in card.text and "a" * 40 in card.text
    assert "seldom says that nothing fits" in card.text and "drawn by a program" not in card.text
    about["params"] = {"world": {"seed": 1}}
    assert "drawn by a program" in model_card("toy", SOME, "mit", about, WHERE, [])
