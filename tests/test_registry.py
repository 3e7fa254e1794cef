"""Versions, their order, and what labels stand for: the log of a name, in both kinds of store."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT
from tests.releases import SOME, make_checkpoint, other, release
from vlmr1.cli import main
from vlmr1.release.compare import differences, said
from vlmr1.release.log import ANY, note, read_log
from vlmr1.release.registry import (
    LabelMoved,
    number_of,
    promote,
    promoted,
    refusal,
    refuse,
    releases,
    remove_label,
    resolve,
    roll_back,
)
from vlmr1.release.store import open_store
from vlmr1.settings import Gate, load_params

ENTRY = '{"event": "promoted", "version": "%s", "label": "%s", "expected": null, "reason": null, "at": ""}'


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
    with pytest.raises(ValueError, match=rf"toy@{c} was refused \(worse on larger\); .* --reason"):
        promote(store, "toy", c, "prod")
    refused = [None, "rolled back: a fault in the field", "worse on larger"]
    assert [r.refused for r in releases(store, "toy")] == refused
    promote(store, "toy", c, "prod", "better elsewhere")
    assert releases(store, "toy")[2].refused is None
    assert roll_back(store, "toy", "prod") == a
    assert [entry.event for entry in read_log(store, "toy")] == [
        *("published", "published", "published", "promoted", "promoted"),  # twice the same is once
        *("refused", "rolled back", "promoted", "rolled back"),
    ]
    found = releases(store, "toy")
    assert [(r.version, r.number, r.labels) for r in found] == [(a, 1, ("prod",)), (b, 2, ()), (c, 3, ())]
    assert [note.reason for note in found[2].notes] == [None, "worse on larger", "better elsewhere"]
    assert [resolve(store, f"toy@v{i}")[1] for i in (1, 2, 3)] == [a, b, c]
    with pytest.raises(ValueError, match=rf"no release toy@v4: the versions of toy are v1 \({a}\), v2 \({b}\), v3"):
        resolve(store, "toy@v4")


def test_of_many_who_write_at_once_none_is_lost(store_url, checkpoint):
    store, version = open_store(store_url), release(store_url, checkpoint)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda i: promote(store, "toy", version, f"for-{i}", str(i)), range(6)))
    log = read_log(store, "toy")
    assert len(log) == 7 and {entry.reason for entry in log[1:]} == set("012345")
    assert len(releases(store, "toy")[0].labels) == 6


def test_a_label_is_taken_only_from_the_version_that_was_expected(store_url, checkpoint):
    store = open_store(store_url)
    a, b, c = (release(store_url, checkpoint, other(a=i)) for i in range(3))
    promote(store, "toy", a, "prod", expected=None)
    with pytest.raises(LabelMoved, match=f"now stands for {a}, no longer for nothing"):
        promote(store, "toy", b, "prod", expected=None)
    for version in (b, c):  # two who saw `a` at one moment and wrote then: the second is void
        note(store, "toy", "promoted", version, "prod", None, a)
    assert promoted(store, "toy", "prod") == b and len(read_log(store, "toy")) == 5
    promote(store, "toy", c, "prod", expected=b)
    assert roll_back(store, "toy", "prod") == b


def test_two_entries_of_one_number_are_both_kept_the_earlier_first(store_url, checkpoint, monkeypatch):
    store = open_store(store_url)
    a, b = (release(store_url, checkpoint, other(a=i)) for i in range(2))
    monkeypatch.setattr("vlmr1.release.log._keys", lambda *_: [])  # each looked before the other wrote
    for version in (a, b):
        note(store, "toy", "promoted", version, "prod", None, ANY)
    monkeypatch.undo()
    assert roll_back(store, "toy", "prod") == a


def test_what_was_refused_is_so_once_and_what_was_rolled_back_wants_a_reason(store_url, checkpoint):
    store = open_store(store_url)
    a, b = (release(store_url, checkpoint, other(a=i)) for i in range(2))
    refuse(store, "toy", b, "worse")
    refuse(store, "toy", b, "worse again")
    assert [entry.reason for entry in read_log(store, "toy") if entry.event == "refused"] == ["worse"]
    promote(store, "toy", a, "prod")
    promote(store, "toy", b, "prod", "wanted all the same")
    assert refusal(store, "toy", b) is None
    roll_back(store, "toy", "prod", "a fault")
    assert refusal(store, "toy", b) == "rolled back: a fault" and refusal(store, "toy", a) is None
    with pytest.raises(ValueError, match=r"rolled back: a fault.*--reason"):
        promote(store, "toy", b, "prod")


def test_what_is_not_there_cannot_be_promoted(store_url, checkpoint):
    store = open_store(store_url)
    release(store_url, checkpoint)
    for act in (lambda v: promote(store, "toy", v, "prod"), lambda v: refuse(store, "toy", v, "why")):
        with pytest.raises(ValueError, match="lists those there are"):
            act(SOME)


@pytest.mark.parametrize("label", ["../prod", "Prod", "", "_x", "x-", "latest", "v1", "v02", "abcdef12" * 4])
def test_what_is_no_label_or_could_be_a_version_is_refused_everywhere(tmp_path, checkpoint, label):
    version = release(str(tmp_path), checkpoint)
    with pytest.raises(ValueError, match="label"):
        promote(open_store(str(tmp_path)), "toy", version, label)
    gate = load_params(ROOT / "params.yaml").gate.model_dump()
    with pytest.raises(ValueError, match="label"):
        Gate(**gate | {"label": label})
    assert Gate(**gate | {"label": "my_label-2"}).label == "my_label-2"


def test_a_label_can_be_removed_and_a_mistyped_one_is_told_of_those_there_are(store_url, checkpoint):
    store = open_store(store_url)
    a, b = (release(store_url, checkpoint, other(a=i)) for i in range(2))
    with pytest.raises(ValueError, match=r"promoted to prod; toy has no label; `vlmr1 promote toy@VERSION LABEL`"):
        resolve(store, "toy#prod")
    promote(store, "toy", a, "prod")
    promote(store, "toy", b, "prod")
    promote(store, "toy", b, "my_label")
    with pytest.raises(ValueError, match=rf"promoted to pord; toy has #prod \({b}\), #my_label \({b}\)"):
        resolve(store, "toy#pord")
    assert remove_label(store, "toy", "prod", "out of service") == b
    assert promoted(store, "toy", "prod") is None and resolve(store, "toy#my_label") == ("toy", b)
    assert read_log(store, "toy")[-1].event == "removed"
    for act in (remove_label, roll_back):
        with pytest.raises(ValueError, match=rf"toy has #my_label \({b}\)"):
            act(store, "toy", "prod")
    promote(store, "toy", a, "prod")
    assert promoted(store, "toy", "prod") == a


def test_a_secret_or_a_book_is_no_reason(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "planted-in-the-environment")
    store, version = open_store(str(tmp_path)), release(str(tmp_path), checkpoint)
    for reason, why in (("see planted-in-the-environment", "value of MY_SERVICE_TOKEN"), ("x" * 99_999, "larger")):
        with pytest.raises(ValueError, match=why) as told:
            promote(store, "toy", version, "prod", reason)
        assert "planted" not in str(told.value)
    assert len(read_log(store, "toy")) == 1


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"[" * 60_000,
        b"{}",
        (ENTRY % (SOME, "a/b")).encode(),
        (ENTRY % ("../../etc", "prod")).encode(),
    ],
)
def test_an_entry_that_is_none_is_named(tmp_path, entry):
    store = open_store(str(tmp_path))
    store.put_new(entry, f"toy/log/00000001-{'0' * 24}.json")
    with pytest.raises(ValueError, match=r"toy/log/00000001-0+\.json: not an entry"):
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
    refuse(open_store(url), "toy", b, "worse\x1b[31m on larger")
    assert told("releases", "list", "toy").splitlines()[1].endswith("REFUSED: worse?[31m on larger")
    assert json.loads(told("releases", "toy", "--json"))[1]["refused"].startswith("worse")
    with pytest.raises(SystemExit, match=r"was refused \(worse\?\[31m on larger\); .* --reason"):
        main(["promote", "toy@v2", "prod", "--store", url])
    told("promote", "toy@v2", "prod", "--store", url, "--reason", "wanted all the same")
    assert "REFUSED" not in told("releases", "list")
    assert told("promote", "toy", "prod", "--remove") == f"toy#prod no longer stands for toy@{b}\n"
    assert told("releases", "clean", "toy") == "nothing to remove\n"
    assert said(differences(*(release.manifest for release in [releases(open_store(url), "toy")[0]] * 2))) == [
        "no difference"
    ]


def test_a_manifest_that_cannot_be_read_is_listed_and_blocks_no_other(tmp_path, checkpoint, capsys):
    store = open_store(str(tmp_path / "store"))
    a, b = (release(store.url, checkpoint, other(a=i)) for i in range(2))
    (tmp_path / "store/toy" / a / "manifest.json").write_text("{}")
    assert [one.version for one in releases(store, "toy")] == [b] and number_of(store, "toy", b) == 2
    main(["promote", "toy@v2", "prod", "--store", store.url])
    main(["releases", "--store", store.url])
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith(f"toy@v1  {a}  unreadable: toy@{a}: not a release manifest") and "#prod" in second
    main(["releases", "toy", "--json", "--store", store.url])
    assert "unreadable" in json.loads(capsys.readouterr().out)[0]
    with pytest.raises(ValueError, match="not a release manifest"):
        promote(store, "toy", a, "prod")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["other"], "nothing is published as 'other' in .*; there is: toy"),
        (["toi"], "did you mean toy"),
        (["list", "toi"], "did you mean toy"),
        (["list", "a", "b"], r"write `vlmr1 releases list \[NAME\]`"),
        (["show"], "write `vlmr1 releases show RELEASE`; a RELEASE is NAME@VERSION"),
        (["diff", "toy@v1"], "write `vlmr1 releases diff RELEASE RELEASE`"),
        (["clean"], "write `vlmr1 releases clean NAME`"),
        (["toy@latest"], "`vlmr1 releases show toy@latest` tells of it"),
        (["../x"], r"nothing is published as '\.\./x'"),
        (["show", "toy"], "'toy': give NAME@VERSION"),
        (["a", "b"], "give nothing, NAME, `list"),
    ],
)
def test_words_that_are_missing_or_too_many_are_told(tmp_path, checkpoint, words, said):
    release(str(tmp_path / "store"), checkpoint)
    with pytest.raises(SystemExit, match=said):
        main(["releases", *words, "--store", str(tmp_path / "store")])
