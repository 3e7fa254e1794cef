"""Releases against a folder and against a real S3 server over HTTP."""

import json

import pytest

from vlmr1.release.card import model_card
from vlmr1.release.manifest import check_manifest
from vlmr1.release.publish import publish
from vlmr1.release.pull import pull
from vlmr1.release.store import open_store
from vlmr1.work import fingerprint_of

FIGURES = {
    "task": "rec",
    "judged": "acc_0.5",
    "acc_0.5": 0.5,
    "acc_0.5_low": 0.4,
    "acc_0.5_high": 0.6,
    "mean_iou": 0.5,
    "parse_failure_rate": 0.0,
    "n": 100,
}
ABOUT = {"base": "nothing", "scores": {"in": FIGURES}, "params": {"a": 1}, "data_sha256": {"data": "0" * 64}}
WHERE = {"commit": "c" * 40, "dirty": False, "packages": {}}


@pytest.fixture(scope="session")
def s3_server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store_url(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "store")
    import boto3

    server = request.getfixturevalue("s3_server")
    for key, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    bucket = f"bucket-{abs(hash(tmp_path)) % 10**9}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/releases"


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (folder / "sub/config.json").write_text("{}")
    return folder


def release(url, checkpoint, tmp_path):
    return publish(
        open_store(url),
        "toy",
        checkpoint,
        tmp_path / "work",
        ABOUT,
        WHERE,
        lambda v: model_card("toy", v, ABOUT, WHERE),
    )


def test_what_is_published_can_be_pulled_by_version_and_as_latest(store_url, checkpoint, tmp_path):
    version = release(store_url, checkpoint, tmp_path)
    for wanted in (version, "latest"):
        target = tmp_path / f"landed-{wanted}"
        manifest = pull(open_store(store_url), f"toy@{wanted}", target, lambda _: None)
        assert manifest["version"] == version and manifest["commit"] == "c" * 40
        landed = fingerprint_of(target)
        assert fingerprint_of(checkpoint).items() <= landed.items()
        assert set(landed) - set(fingerprint_of(checkpoint)) == {"README.md", "manifest.json"}
        assert f"toy@{version}" in (target / "README.md").read_text()


def test_publishing_again_changes_nothing_and_other_scores_are_another_version(store_url, checkpoint, tmp_path):
    store = open_store(store_url)
    version = release(store_url, checkpoint, tmp_path)
    before = store.read(f"toy/{version}/manifest.json")
    assert release(store_url, checkpoint, tmp_path) == version
    assert store.read(f"toy/{version}/manifest.json") == before
    other = ABOUT | {"params": {"a": 2}}
    assert publish(store, "toy", checkpoint, tmp_path / "work", other, WHERE, lambda v: v) != version


def test_an_interrupted_upload_is_invisible_and_is_completed_when_repeated(
    store_url, checkpoint, tmp_path, monkeypatch
):
    store = open_store(store_url)
    puts = []
    real = type(store).put

    def dying(self, path, key):
        if puts:
            raise KeyboardInterrupt
        puts.append(key)
        real(self, path, key)

    monkeypatch.setattr(type(store), "put", dying)
    with pytest.raises(KeyboardInterrupt):
        release(store_url, checkpoint, tmp_path)
    with pytest.raises(ValueError, match="no release"):
        pull(store, "toy@latest", tmp_path / "landed", lambda _: None)
    monkeypatch.setattr(type(store), "put", real)
    version = release(store_url, checkpoint, tmp_path)
    assert pull(store, f"toy@{version}", tmp_path / "landed", lambda _: None)["files"]


def test_a_manifest_is_never_overwritten(store_url):
    store = open_store(store_url)
    store.put_new(b"one", "toy/v/manifest.json")
    with pytest.raises(FileExistsError):
        store.put_new(b"two", "toy/v/manifest.json")
    assert store.read("toy/v/manifest.json") == b"one"


@pytest.mark.parametrize("damage", [b"short", b"\x01" + bytes(range(1, 256)) + bytes(range(256)) * 99])
def test_a_damaged_file_is_named_and_nothing_lands(store_url, checkpoint, tmp_path, damage):
    version = release(store_url, checkpoint, tmp_path)
    open_store(store_url).replace(damage, f"toy/{version}/model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors differs"):
        pull(open_store(store_url), f"toy@{version}", tmp_path / "landed", lambda _: None)
    assert not list(tmp_path.glob("*landed*")) and not list(tmp_path.glob(".*landed*"))


def test_pull_refuses_a_folder_that_holds_something(store_url, checkpoint, tmp_path):
    version = release(store_url, checkpoint, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x")
    with pytest.raises(ValueError, match="already holds something"):
        pull(open_store(store_url), f"toy@{version}", tmp_path / "mine", lambda _: None)
    assert (tmp_path / "mine/precious").read_text() == "x"


@pytest.mark.parametrize("wanted", ["toy", "toy@", "../x@v", "toy@../..", "toy@nosuch"])
def test_a_name_that_is_none_is_refused(tmp_path, wanted):
    with pytest.raises(ValueError, match=r"NAME@VERSION|no release"):
        pull(open_store(str(tmp_path)), wanted, tmp_path / "landed", lambda _: None)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "./a", "manifest.json"])
def test_a_hostile_manifest_is_refused(name):
    files = {"ok": {"sha256": "0" * 64, "size": 1}, name: {"sha256": "0" * 64, "size": 1}}
    with pytest.raises(ValueError, match="leave the folder"):
        check_manifest(json.dumps({"format": 1, "name": "t", "version": "v", "files": files}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "files": {"a": {}}}',
        '{"format": 1, "files": {}}',
        '{"format": 1, "files": {"a": {"size": -1, "sha256": ""}}}',
    ],
)
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(ValueError):
        check_manifest(text)


def test_a_server_that_cannot_be_reached_is_said_in_a_sentence_without_the_secret(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL") as error:
        open_store("s3://bucket/x").exists("k")
    assert "planted-secret" not in str(error.value)


def test_a_store_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="give a folder"):
        open_store("ftp://host/x")
