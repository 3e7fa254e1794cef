"""What anybody may have written: manifests, folders with links, and secrets that must not leave."""

import json
import logging
from pathlib import Path

import pytest

from tests.conftest import default_params
from tests.releases import ABOUT, SCORE, SOME, WHERE, make_checkpoint, other, release
from vlmr1.cli import main
from vlmr1.release.manifest import check_manifest, version_of
from vlmr1.release.names import check_names
from vlmr1.release.publish import publish
from vlmr1.release.pull import pull
from vlmr1.release.registry import releases
from vlmr1.release.secrets import refuse_secrets, refuse_secrets_in
from vlmr1.release.store import FolderStore, open_store
from vlmr1.settings import load_params

FINE = {"sha256": "0" * 64, "size": 1}
HOSTILE = [
    *("../evil", "/etc/evil", "a/../../evil", "a\\evil", "./a", "a//b", "a/", "", "..", "a/./b", "C:evil", "C:/evil"),
    *("~/x\n", "a\x00b", "a\x1b[2J", "nul", "CON.txt", "a/aux.json", "com1", "lpt¹.x", "end.", "end ", "a /b", "a./b"),
    *(".git/config", ".bashrc", "a/.ssh/key", "a" * 300, "/".join("a" * 20), "x\u202egnp.exe", "e\u0301", "a*", 'a"b'),
    *("manifest.json", "MANIFEST.JSON", "model.BIN", "pytorch_model.bin", "x.pkl", "optimizer.pt", "a.ckpt", "a\ud800"),
    *("run.py", "x.BAT", "sub/Desktop.ini", "autorun.inf", "MODEL~1.SAF", "libx.so"),
]


def manifest_of(files, **more):
    version = version_of(files, ABOUT)
    whole = {"format": 2, "name": "toy", "version": version, "files": files, "about": ABOUT}
    return json.dumps(whole | {"where": {**WHERE, "parent": None}} | more), version


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_name_out_of_place_is_refused(name):
    text, version = manifest_of({"ok": FINE, name: FINE})
    with pytest.raises(ValueError):
        check_manifest(text, "toy", version)


def test_a_hostile_manifest_leaves_no_trace_anywhere(tmp_path):
    """Through the whole pull, each from a store whose server would send the bytes."""
    (tmp_path / "home/work").mkdir(parents=True)
    for name in HOSTILE:
        text, version = manifest_of({"ok": FINE, name: FINE})
        put_manifest(tmp_path, text, version)
        with pytest.raises(ValueError) as told:
            pull(open_store(str(tmp_path / "store")), f"toy@{version}", tmp_path / "home/work/landed", print)
        assert str(told.value).isprintable()
    assert [path.name for path in (tmp_path / "home").rglob("*")] == ["work"]
    assert {path.name for path in tmp_path.iterdir()} == {"home", "store"}


@pytest.mark.parametrize("files", [{"a\x1b[2Jb": {"size": -1}}, {"\u202etxt": FINE}, {"a\nb": FINE}])
def test_what_is_said_of_a_hostile_manifest_steers_no_terminal(tmp_path, files, capsys):
    text, version = manifest_of(files)
    put_manifest(tmp_path, text, version)
    with pytest.raises(SystemExit) as told:
        main(["pull", f"toy@{version}", "--to", str(tmp_path / "x"), "--store", str(tmp_path / "store")])
    assert str(told.value).isprintable() and not capsys.readouterr().out


def test_an_entry_of_the_log_steers_no_terminal(tmp_path):
    store = open_store(str(tmp_path))
    store.put_new(b'{"event": "published", "\\u001b[2J": 1}', f"toy/log/00000001-{'0' * 24}.json")
    with pytest.raises(ValueError, match=r"00000001-0+\.json: not an entry") as told:
        releases(store, "toy")
    assert str(told.value).isprintable()


@pytest.mark.parametrize("names", [("a", "A"), ("x/a", "X/b"), ("a", "a/b"), ("A", "a/b"), ("straße", "STRASSE")])
def test_names_that_are_one_on_another_computer_are_refused(names):
    with pytest.raises(ValueError, match=r"differ only by case|a file and a folder"):
        check_names(names, "manifest.json")
    check_names(("model-00001-of-00002.safetensors", "sub/config.json", "sub/x.txt", "Überblick.md"), "manifest.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format"),
        ({"files": {}}, "files"),
        ({"files": {"a": {"size": -1, "sha256": "0" * 64}}}, "size"),
        ({"files": {"a": {"size": 1 << 60, "sha256": "0" * 64}}}, "size"),
        ({"files": {"a": {"size": 1.5, "sha256": "0" * 64}}}, "size"),
        ({"files": {"a": {"size": 1, "sha256": "x"}}}, "sha256"),
        ({"files": {f"f{i}": FINE for i in range(10_001)}}, "files"),
        ({"files": {"b": FINE}}, "names other content"),
        ({"about": ABOUT | {"params": {"a": 2}}}, "names other content"),
        ({"about": ABOUT | {"scores": {"in": {"task": "rec", "judged": "x", "n": 1}}}}, "interval"),
        ({"about": ABOUT | {"scores": {"in": SCORE | {"acc_0.5_low": float("nan")}}}}, "interval"),
        ({"about": ABOUT | {"scores": {"in": SCORE | {"acc_0.5_low": True}}}}, "interval"),
        ({"about": ABOUT | {"scores": {"in": SCORE | {"acc_0.5": 10**400}}}}, "interval|scores"),
        ({"about": ABOUT | {"params": {"a": float("nan")}}}, "JSON compliant|not a release manifest"),
        ({"name": "other"}, "is of other"),
        ({"surplus": 1}, "surplus"),
        ({"where": {**WHERE, "parent": None, "dvc_lock": {"grpo": {"models/grpo": "../../etc/passwd"}}}}, "dvc_lock"),
    ],
)
def test_a_manifest_that_lies_is_refused(change, message):
    text, version = manifest_of({"a": FINE})
    check_manifest(text, "toy", version)
    with pytest.raises(ValueError, match=message):
        check_manifest(json.dumps({**json.loads(text), **change}), "toy", version)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "null", '{"files": {"a": {"size": 1e999}}}', "\xff"])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(ValueError, match="not a release manifest"):
        check_manifest(text, "toy", SOME)


def put_manifest(tmp_path, text, version):
    folder = tmp_path / "store/toy" / version
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(text)
    return folder


def test_sizes_beyond_the_disk_are_refused_before_a_byte_is_fetched(tmp_path):
    text, version = manifest_of({"a": {"sha256": "0" * 64, "size": (1 << 50) - 1}})
    put_manifest(tmp_path, text, version)
    with pytest.raises(ValueError, match="GB are free"):
        pull(open_store(str(tmp_path / "store")), f"toy@{version}", tmp_path / "landed", print)
    assert not list(tmp_path.glob("*landed*")) and not list(tmp_path.glob(".*landed*"))


def test_a_manifest_of_a_billion_entries_is_not_even_read(tmp_path):
    text, version = manifest_of({"a": FINE})
    folder = put_manifest(tmp_path, text, version)
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(40 << 30)  # sparse
    with pytest.raises(ValueError, match="larger than"):
        pull(open_store(str(tmp_path / "store")), f"toy@{version}", tmp_path / "landed", print)


def test_links_in_a_store_lead_nowhere_else(tmp_path):
    """Neither a file's link nor a folder's; and what a pull left half done cannot be swapped for a link."""
    (tmp_path / "secret").write_text("x")
    text, version = manifest_of(
        {"a": {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "size": 1}}
    )
    folder = put_manifest(tmp_path, text, version)
    (folder / "a").symlink_to(tmp_path / "secret")
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(ValueError, match="leaves its folder"):
        pull(store, f"toy@{version}", tmp_path / "landed", print)
    (folder / "a").unlink()
    (folder / "a").write_text("x")
    (tmp_path / "outside").mkdir()
    half = tmp_path / f".landed.{version}.tmp"
    half.symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="is a link"):
        pull(store, f"toy@{version}", tmp_path / "landed", print)
    half.unlink()
    half.mkdir()
    (half / "files").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="link"):
        pull(store, f"toy@{version}", tmp_path / "landed", print)
    assert not list((tmp_path / "outside").iterdir())


def test_a_checkpoint_with_pickles_is_not_published(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", 1024)
    (checkpoint / "training_args.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="pickled code"):
        release(str(tmp_path / "store"), checkpoint)
    assert not (tmp_path / "store").exists()


SECRETS = {
    "a token of the hub": "hf_" + "a" * 34,
    "an AWS access key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "a URL with a user": "https://me:hunter2@host/x",
    "a token of GitHub": "ghp_" + "a" * 36,
    "a token of GitLab": "glpat-" + "a" * 20,
    "a token of Slack": "xoxb-123456789012-abcdefghijkl",
    "an API key": "AIza" + "a" * 35,
    "a signed token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijk",
    "a URL with a key": "https://b.s3/x?X-Amz-Expires=60&X-Amz-Signature=0123456789abcdef",
    "the address of a webhook": "https://hooks.slack.com/services/T0/B0/planted",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
    "MY_SERVICE_TOKEN": "planted-in-the-environment",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_planted_secret_is_not_published_and_not_repeated(tmp_path, monkeypatch, kind, caplog, capfd):
    monkeypatch.setenv("MY_SERVICE_TOKEN", SECRETS["MY_SERVICE_TOKEN"])
    checkpoint, store = make_checkpoint(tmp_path / "checkpoint", 1024), open_store(str(tmp_path / "store"))
    caplog.set_level(logging.DEBUG)
    for about, card in ((other(a=[SECRETS[kind]]), "card"), (ABOUT, f"see {SECRETS[kind]}")):
        with pytest.raises(ValueError, match=kind) as told:
            publish(store, "toy", checkpoint, about, WHERE, lambda v, card=card: card, {})
        assert SECRETS[kind] not in str(told.value) + caplog.text + "".join(capfd.readouterr())
    assert not (tmp_path / "store").exists()


def test_a_secret_is_found_as_json_writes_it_and_in_the_files_themselves(tmp_path, monkeypatch):
    checkpoint, store = make_checkpoint(tmp_path / "checkpoint", 1024), open_store(str(tmp_path / "store"))
    for secret in ('quote"and\\slash', "schlüssel-geheim", "two\nlines-of-it"):
        monkeypatch.setenv("MY_SERVICE_TOKEN", secret)
        with pytest.raises(ValueError, match="the value of MY_SERVICE_TOKEN"):
            publish(store, "toy", checkpoint, other(a=[secret]), WHERE, lambda version: "a card", {})
    (checkpoint / "sub/config.json").write_text(json.dumps({"key": SECRETS["a token of GitHub"]}))
    with pytest.raises(ValueError, match=r"^sub/config\.json would hold a token of GitHub"):
        release(str(tmp_path / "store"), checkpoint)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "VLMR1_NOTIFY_URL", "PREFECT_API_AUTH_STRING", "OPENAI_KEY", "DATABASE_URL", "MY_PASS", "A_PWD"],
)
def test_the_value_of_a_variable_whose_name_speaks_of_a_secret_is_found(name):
    with pytest.raises(ValueError, match=f"the value of {name}"):
        refuse_secrets('{"x": "before planted-value after"}', "x", {name: "planted-value"})


@pytest.mark.parametrize(
    "url", ["https://us%40er:pa/ss@host/x", "s3://h/x?token=planted1", "https://h/c?sig=abcdef%3D"]
)
def test_a_secret_in_a_url_is_found_in_a_text_of_any_ending(tmp_path, url):
    (tmp_path / "notes").write_text(f"see {url}")
    with pytest.raises(ValueError, match=r"^notes would hold a URL with"):
        refuse_secrets_in(tmp_path)


def test_ordinary_texts_hold_no_secret():
    ordinary = {"TOKENIZERS_PARALLELISM": "false", "GIT_AUTHOR_NAME": "me@host, TOK", "OLDPWD": "https://host"}
    text = "https://host/a@b, http://host:8000/v1/a@b, mail me@host, TOKENIZERS false, sk-short, ?tokens=many&page=2"
    refuse_secrets(text, "x", ordinary)


@pytest.mark.parametrize(
    "url", ["s3://AKIAX:hunter2secret@bucket/x", "https://u:hunter2secret@host", "s3://b/x?k=hunter2secret"]
)
def test_a_stores_url_with_a_secret_is_refused_without_repeating_it(url, tmp_path):
    with pytest.raises(ValueError, match="holds no user") as told:
        open_store(url)
    assert "hunter2secret" not in str(told.value)
    params = tmp_path / "params.yaml"
    text = default_params()
    params.write_text(
        text.replace("store: releases ", f"store: {url} ").replace("store: releases\n", f"store: {url}\n")
    )
    with pytest.raises(ValueError, match=r"publish: a store's URL") as told:
        load_params(params)
    assert "hunter2secret" not in str(told.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "", "s3:///x", "s3:", "http:x", "file://", "file:releases"])
def test_a_store_of_another_kind_is_refused(url):
    with pytest.raises(ValueError, match=r"give a folder|give file:///srv"):
        open_store(url)


def test_a_folder_by_any_of_its_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", "~/a b"):
        store = open_store(url)
        assert isinstance(store, FolderStore) and store.root == tmp_path / "a b"


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_pull_wants_the_name_of_a_folder(tmp_path, target):
    release(str(tmp_path / "store"), make_checkpoint(tmp_path / "checkpoint", 1024))
    with pytest.raises(ValueError, match="already"):
        pull(open_store(str(tmp_path / "store")), "toy@latest", Path(target), print)
