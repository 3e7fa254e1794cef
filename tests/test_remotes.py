"""Raw data between machines, by the commands of docs/your-own-data.md: a folder, and a real S3 server over HTTP."""

import pytest

from tests.conftest import run

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
IDENTITY = "dvc remote modify --local store"


@pytest.fixture(scope="module")
def s3(request):
    """(URL of a bucket's prefix, URL of the server) on a server of our own."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    request.addfinalizer(server.stop)
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
        region_name="us-east-1",
    ).create_bucket(Bucket="lists")
    return "s3://lists/vlmr1", url


def dvc(folder, *commands, **environment):
    """What the last of these commands said, each in a folder."""
    said = ""
    for command in commands:
        said = run(command.split(), folder, **environment)
    return said


def commit(folder):
    run([*GIT, "add", "-A"], folder)
    run([*GIT, "commit", "-q", "-m", "data"], folder)


@pytest.fixture
def here(tmp_path):
    """A repository with a data set under `dvc add`."""
    folder = tmp_path / "here"
    (folder / "data/rec/images").mkdir(parents=True)
    for name, text in {"train.jsonl": '{"a": 1}\n', "images/0.png": "one picture", "images/1.png": "another"}.items():
        (folder / "data/rec" / name).write_text(text)
    run(["git", "init", "-q", "-b", "main"], folder)
    dvc(folder, "dvc init -q", "dvc config core.analytics false", "dvc add -q data/rec")
    commit(folder)
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_data_is_pushed_and_pulled(here, tmp_path, request, kind):
    keys = {}
    if kind == "folder":
        dvc(here, f"dvc remote add -d store {tmp_path}/store")
    else:
        bucket, server = request.getfixturevalue("s3")
        dvc(here, f"dvc remote add -d store {bucket}", f"dvc remote modify store endpointurl {server}")
        keys = KEYS
    commit(here)
    assert "4 files pushed" in dvc(here, "dvc push data/rec.dvc", **keys)  # three files and the list of them
    there = tmp_path / "there"
    run(["git", "clone", "-q", str(here), str(there)], tmp_path)
    assert not (there / "data/rec").exists()
    dvc(there, "dvc pull data/rec.dvc", **keys)
    assert files(there / "data/rec") == files(here / "data/rec")
    # one file changed is one file sent, beside the list of them
    (here / "data/rec/train.jsonl").write_text('{"a": 2}\n')
    dvc(here, "dvc add -q data/rec")
    commit(here)
    assert "2 files pushed" in dvc(here, "dvc push data/rec.dvc", **keys)
    run(["git", "pull", "-q"], there)
    dvc(there, "dvc pull data/rec.dvc", **keys)
    assert files(there / "data/rec") == files(here / "data/rec")


def test_keys_in_the_local_config_are_used_and_stay_out_of_git(here, s3):
    bucket, server = s3
    dvc(here, f"dvc remote add -d store {bucket}-keys", f"dvc remote modify store endpointurl {server}")
    dvc(here, f"{IDENTITY} access_key_id k", f"{IDENTITY} secret_access_key planted", f"{IDENTITY} region us-east-1")
    assert "4 files pushed" in dvc(here, "dvc push data/rec.dvc")
    commit(here)
    assert "planted" in (here / ".dvc/config.local").read_text()
    assert "planted" not in run(["git", "log", "-p"], here)


def test_imported_data_follows_its_origin(here, tmp_path):
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a.jsonl").write_text("{}\n")
    dvc(here, f"dvc import-url -q {origin} data/lists")
    assert files(here / "data/lists") == files(origin)
    (origin / "b.jsonl").write_text("{}\n")
    dvc(here, "dvc update -q data/lists.dvc")
    assert files(here / "data/lists") == files(origin)
