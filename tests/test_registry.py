"""Versions, their order, and what labels stand for: the log of a name, in both kinds of store."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.releases import make_checkpoint, other, release
from vlmr1.cli import main
from vlmr1.release.compare import differences, said
from vlmr1.release.registry import note, promote, promoted, read_log, refuse, releases, resolve, roll_back
from vlmr1.release.store import open_store


@pytest.fixture
def checkpoint(tmp_path):
    return make_checkpoint(tmp_path / "checkpoint", 1024)


def test_labels_move_forward_and_back(store_url, checkpoint):
    store = open_store(store_url)
    a, b, c = (release(store_url, checkpoint, other(a=i)) for i in range(3))
    assert promoted(store, "toy", "prod") is None
    with pytest.raises(ValueError, match="was promoted to prod"):
        resolve(store, "toy#prod")
    for version in (a, b, b):
        promote(store, "toy", version, "prod", "better")
    refuse(store, "toy", c, "worse on larger")
    assert resolve(store, "toy#prod") == ("toy", b) and resolve(store, "toy@latest") == ("toy", c)
    assert roll_back(store, "toy", "prod", "a fault in the field") == a == promoted(store, "toy", "prod")
    with pytest.raises(ValueError, match="no earlier version"):
        roll_back(store, "toy", "prod")
    promote(store, "toy", c, "prod")
    assert roll_back(store, "toy", "prod") == a
    assert [entry.event for entry in read_log(store, "toy")] == [
        *("published", "published", "published", "promoted", "promoted"),  # twice the same is once
        *("refused", "rolled back", "promoted", "rolled back"),
    ]
    found = releases(store, "toy")
    assert [(r.version, r.number, r.labels) for r in found] == [(a, 1, ("prod",)), (b, 2, ()), (c, 3, ())]
    assert [note.reason for note in found[2].notes] == [None, "worse on larger", None]
    assert [resolve(store, f"toy@v{i}")[1] for i in (1, 2, 3)] == [a, b, c]
    with pytest.raises(ValueError, match="has 3 versions"):
        resolve(store, "toy@v4")


def test_the_parent_is_what_was_promoted_then(store_url, checkpoint):
    store = open_store(store_url)
    a = release(store_url, checkpoint, other(a=1))
    promote(store, "toy", a, "prod")
    b = release(store_url, checkpoint, other(a=2))
    parents = [one.manifest["where"]["parent"] for one in releases(store, "toy")]
    assert parents == [None, a] and a != b


def test_many_who_write_at_once_take_a_number_each(store_url, checkpoint):
    store, version = open_store(store_url), release(store_url, checkpoint)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda i: note(store, "toy", "refused", version, None, str(i)), range(6)))
    log = read_log(store, "toy")
    assert len(log) == 7 and {entry.reason for entry in log[1:]} == set("012345")


def test_what_is_not_there_cannot_be_promoted(store_url, checkpoint):
    store = open_store(store_url)
    version = release(store_url, checkpoint)
    for act in (lambda v: promote(store, "toy", v, "prod"), lambda v: refuse(store, "toy", v, "why")):
        with pytest.raises(ValueError, match="lists those there are"):
            act("0123456789ab")
    with pytest.raises(ValueError, match="label"):
        promote(store, "toy", version, "../prod")


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"[" * 60_000,
        b"{}",
        b'{"event": "published", "version": "../../etc", "label": null, "reason": null, "at": ""}',
        b'{"event": "promoted", "version": "0123456789ab", "label": "a/b", "reason": null, "at": ""}',
    ],
)
def test_an_entry_that_is_none_is_named(tmp_path, entry):
    store = open_store(str(tmp_path))
    store.put_new(entry, "toy/log/00000001.json")
    with pytest.raises(ValueError, match=r"toy/log/00000001\.json: not an entry"):
        releases(store, "toy")


def test_the_command_lists_shows_and_tells_differences(tmp_path, checkpoint, capsys):
    url = str(tmp_path / "store")
    a = release(url, checkpoint, other(grpo={"steps": 10}))
    better = {"in": {**other()["scores"]["in"], "acc_0.5": 0.9, "acc_0.5_low": 0.85, "acc_0.5_high": 0.94}}
    b = release(url, checkpoint, other(grpo={"steps": 20}) | {"scores": better})

    def told(*words):
        main([*words, "--store", url])
        return capsys.readouterr().out

    assert told("promote", f"toy@{a}", "prod", "--reason", "good\x1b[31m enough") == f"toy#prod is toy@{a}\n"
    told("promote", "toy@latest", "prod")
    assert f"toy@v2  {b}" in told("releases") and "#prod" in told("releases", "toy").splitlines()[1]
    assert told("promote", "toy", "prod", "--back") == f"toy#prod is toy@{a}\n"
    shown = told("releases", "show", "toy#prod")
    assert "published" in shown and "promoted #prod: good?[31m enough" in shown and "\x1b" not in shown
    lines = told("releases", "diff", "toy@v1", "toy@v2").splitlines()
    assert "params  grpo.steps: 10 -> 20" in lines
    assert "score   in: 0.500 [0.400, 0.600] n 100 -> 0.900 [0.850, 0.940] n 100 (+0.400, clear)" in lines
    assert json.loads(told("releases", "diff", "toy@v1", "toy@v2", "--json"))["params"] == {"grpo.steps": [10, 20]}
    assert json.loads(told("releases", "--json"))["toy"][1]["scores"]["in"]["value"] == 0.9
    assert told("releases", "clean", "toy") == "nothing to remove\n"
    assert said(differences(*(release.manifest for release in [releases(open_store(url), "toy")[0]] * 2))) == [
        "no difference"
    ]
    with pytest.raises(SystemExit, match="nothing is published as other"):
        main(["releases", "other", "--store", url])
