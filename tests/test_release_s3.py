"""An S3 server that knows no conditions, cuts replies, fails for a while, lies, or was left in mid-upload."""

import hashlib

import pytest

import vlmr1.release.pull as pulling
import vlmr1.release.s3 as s3
from tests.faulty import faulty
from tests.releases import SOME, make_checkpoint, release
from vlmr1.errors import TransientError
from vlmr1.release.log import read_log
from vlmr1.release.publish import clean
from vlmr1.release.pull import pull
from vlmr1.release.registry import releases
from vlmr1.release.store import open_store
from vlmr1.work import fingerprint_of

MB = 1 << 20


@pytest.fixture
def front(s3_server, bucket, monkeypatch):
    """(client of the server behind, bucket, the URL of a store through the front, what goes wrong there)."""
    client, name = bucket
    with faulty(s3_server) as (url, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        monkeypatch.setattr(pulling, "PAUSE", 0.01)
        yield client, name, f"s3://{name}/releases", faults


@pytest.fixture
def checkpoint(tmp_path):
    return make_checkpoint(tmp_path / "checkpoint")


def quiet(_):
    pass


def test_a_server_that_ignores_conditions_overwrites_nothing(front):
    _, _, url, faults = front
    faults.strip = ("if-none-match",)
    store = open_store(url)
    store.put_new(b"one", "toy/v/manifest.json")
    with pytest.raises(FileExistsError):
        store.put_new(b"two", "toy/v/manifest.json")
    assert store.read("toy/v/manifest.json", 9) == b"one"


def test_two_at_the_same_moment_are_told_apart_by_reading_back(front):
    client, bucket, url, faults = front
    faults.strip = ("if-none-match",)

    def race(method, path, headers, body):
        if method == "PUT":  # another's write lands after ours
            client.put_object(Bucket=bucket, Key="releases/toy/log/00000001.json", Body=b"theirs")
        return headers, body

    faults.change = race
    with pytest.raises(FileExistsError):
        open_store(url).put_new(b"ours", "toy/log/00000001.json")


def test_what_has_a_manifest_is_never_written_again(front, checkpoint):
    _, _, url, faults = front
    faults.strip = ("if-none-match",)
    release(url, checkpoint)
    faults.asked.clear()
    release(url, checkpoint)
    assert {method for method, _ in faults.asked} <= {"GET", "HEAD"}


def test_an_upload_in_parts_goes_on_where_it_was_cut(front, tmp_path, monkeypatch):
    client, bucket, url, faults = front
    monkeypatch.setattr(s3, "PART", 5 * MB)
    monkeypatch.setattr(s3, "SIDE_BY_SIDE", 1)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", 17 * MB)
    faults.answer = lambda method, path: 503 if "partNumber=3" in path else None
    with pytest.raises(TransientError, match="try again"):
        release(url, checkpoint)
    assert releases(open_store(url), "toy") == []
    (upload,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    parts = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])["Parts"]
    held = {part["PartNumber"] for part in parts}
    assert {1, 2} <= held < {1, 2, 3, 4}
    faults.answer = lambda method, path: None
    faults.asked.clear()
    version = release(url, checkpoint)
    sent = [path for method, path in faults.asked if "partNumber=" in path]
    assert {int(path.partition("partNumber=")[2][0]) for path in sent} == {1, 2, 3, 4} - held
    assert not [path for method, path in faults.asked if method == "PUT" and "empty.txt" in path]  # nor a whole file
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    pull(open_store(url), f"toy@{version}", tmp_path / "landed", quiet)
    assert fingerprint_of(checkpoint).items() <= fingerprint_of(tmp_path / "landed").items()


def test_a_part_of_other_bytes_is_sent_again(front, tmp_path, monkeypatch):
    client, bucket, url, _ = front
    monkeypatch.setattr(s3, "PART", 5 * MB)
    path = tmp_path / "file"
    path.write_bytes(b"a" * 6 * MB)
    upload = client.create_multipart_upload(Bucket=bucket, Key="releases/k")["UploadId"]
    client.upload_part(Bucket=bucket, Key="releases/k", UploadId=upload, PartNumber=1, Body=b"b" * 5 * MB)
    open_store(url).put(path, "k", hashlib.sha256(path.read_bytes()).hexdigest())
    assert client.get_object(Bucket=bucket, Key="releases/k")["Body"].read() == path.read_bytes()


def test_a_server_without_notes_is_asked_for_the_bytes(front, tmp_path):
    """An object of the right size without our sha256 is kept only where its bytes are the file's."""
    client, bucket, url, faults = front
    faults.strip_reply = ("x-amz-meta-sha256",)
    path = tmp_path / "file"
    path.write_bytes(b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    client.put_object(Bucket=bucket, Key="releases/k", Body=b"wrong")
    open_store(url).put(path, "k", digest)
    assert client.get_object(Bucket=bucket, Key="releases/k")["Body"].read() == b"right"
    faults.asked.clear()
    open_store(url).put(path, "k", digest)
    assert {method for method, _ in faults.asked} == {"GET", "HEAD"}


def test_uploads_left_in_the_middle_are_cleaned(front):
    client, bucket, url, _ = front
    client.create_multipart_upload(Bucket=bucket, Key=f"releases/toy/{SOME}/model.safetensors")
    client.create_multipart_upload(Bucket=bucket, Key=f"releases/other/{SOME}/model.safetensors")
    store = open_store(url)
    store.put_new(b"{}", f"toy/{SOME}/config.json")
    assert clean(store, "toy") == {}
    assert clean(store, "toy", age=-60) == {SOME: ["config.json", "model.safetensors"]}
    (left,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert "/other/" in left["Key"]


def test_a_reply_that_is_cut_is_taken_up_again(front, checkpoint, tmp_path):
    _, _, url, faults = front
    version = release(url, checkpoint)
    cuts = iter([100, 5000, 0])
    faults.cut = lambda method, path: next(cuts, None) if method == "GET" and "model.safetensors" in path else None
    assert pull(open_store(url), f"toy@{version}", tmp_path / "landed", quiet)["version"] == version
    assert sum("model.safetensors" in path for method, path in faults.asked if method == "GET") == 4


def test_a_server_that_fails_for_good_leaves_what_came_for_the_next_pull(front, checkpoint, tmp_path, monkeypatch):
    _, _, url, faults = front
    version = release(url, checkpoint)
    monkeypatch.setattr(pulling, "TRIES", 2)
    faults.answer = lambda method, path: 500 if "config.json" in path else None
    with pytest.raises(TransientError):
        pull(open_store(url), f"toy@{version}", tmp_path / "landed", quiet)
    assert not (tmp_path / "landed").exists() and (tmp_path / f".landed.{version}.tmp").exists()
    faults.answer = lambda method, path: None
    faults.asked.clear()
    pull(open_store(url), f"toy@{version}", tmp_path / "landed", quiet)
    assert not [path for _, path in faults.asked if "model.safetensors" in path]
    assert not list(tmp_path.glob(".*"))


def test_a_small_key_whose_reply_is_cut_is_read_again(front, checkpoint):
    _, _, url, faults = front
    release(url, checkpoint)
    cuts = iter([3, 3])
    faults.cut = lambda method, path: next(cuts, None) if (method, path[-5:]) == ("GET", ".json") else None
    assert len(read_log(open_store(url), "toy")) == 1 and next(cuts, None) is None


def test_who_may_not_list_uploads_publishes_all_the_same(front, tmp_path, monkeypatch):
    _, _, url, faults = front
    monkeypatch.setattr(s3, "PART", 5 * MB)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", 6 * MB)
    faults.answer = lambda method, path: (403, "AccessDenied") if method == "GET" and "?uploads" in path else None
    with pytest.warns(UserWarning, match="scraps of an interrupted publication may be left.*AccessDenied"):
        version = release(url, checkpoint)
    assert [entry.version for entry in read_log(open_store(url), "toy")] == [version]


@pytest.mark.parametrize("lie", ["whole", "shifted", "more", "less"])
def test_a_server_that_sends_other_bytes_than_were_asked_for(front, checkpoint, tmp_path, lie):
    _, _, url, faults = front
    version = release(url, checkpoint)

    def change(method, path, headers, body):
        if method == "GET" and "model.safetensors" in path:
            if lie == "whole":  # it knows no ranges
                headers = {key: value for key, value in headers.items() if key.lower() != "content-range"}
            elif lie == "shifted":
                headers = {**headers, "Content-Range": "bytes 5-25604/25600"}
            else:
                body = body + b"x" * 99 if lie == "more" else body[:-7]
        return headers, body

    faults.change = change
    if lie == "more":  # nothing beyond what was asked for is read
        pull(open_store(url), f"toy@{version}", tmp_path / "landed", quiet)
        return
    with pytest.raises((ValueError, TransientError), match=r"promised|cut off"):
        pull(open_store(url), f"toy@{version}", tmp_path / "landed", quiet)
    assert not (tmp_path / "landed").exists()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(503, TransientError, "try again"), (429, TransientError, "try again"), (403, ValueError, "credentials")],
)
def test_what_trying_again_may_mend_is_told_from_what_a_person_must(front, status, kind, words):
    _, _, url, faults = front
    faults.answer = lambda method, path: status
    with pytest.raises(kind, match=words) as told:
        read_log(open_store(url), "toy")
    assert type(told.value) is kind and "planted-secret" not in str(told.value)


def test_a_server_that_cannot_be_reached_and_a_bucket_that_is_not_there(front, monkeypatch):
    _, _, url, _ = front
    with pytest.raises(ValueError, match="no such bucket"):
        open_store("s3://not-there-at-all/x").children("toy")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:planted-secret@127.0.0.1:9")
    with pytest.raises(TransientError, match="AWS_ENDPOINT_URL") as told:
        open_store(url).size("k")
    assert "planted-secret" not in str(told.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "planted-secret")
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL") as told:
        open_store(url).size("k")
    assert "planted-secret" not in str(told.value)
