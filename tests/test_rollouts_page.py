"""The rollout viewer: what training logs, read as groups, filtered, shown with pictures, and written as Parquet."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.test_training import GRPO, grpo
from vlmr1.cli import main
from vlmr1.playground.choosing import chosen
from vlmr1.playground.rollouts import Run
from vlmr1.playground.server import page
from vlmr1.sample import read_jsonl, write_jsonl

GROUPS, SIZE = 8, 3  # two rollouts of four groups of three


@pytest.fixture(scope="module")
def logged(trained, tmp_path_factory):
    """The work folder of a short training, an alarm at its last rollout."""
    work = tmp_path_factory.mktemp("run") / "work"
    settings = GRPO.model_copy(update={"steps": 4, "beta": 0.0})
    grpo(trained, work, settings=settings).run()
    write_jsonl(work / "alarms.jsonl", [{"step": 3, "kind": "boxes", "message": "since step 1 boxes 1 -> 9"}])
    return work


@pytest.fixture
def here(logged, trained):
    return TestClient(page([], Run(logged.parent, trained[1].images), ("testserver",)))


def test_groups_are_those_of_training(logged):
    run, rows = Run(logged), read_jsonl(logged / "rollouts.jsonl")
    assert [group.step for group in run.groups] == [1] * 4 + [3] * 4 and len(rows) == GROUPS * SIZE
    assert [row for group in run.groups for row in run.rows(group)] == [
        row | {"number": row["number"] + 1} for row in rows
    ]
    assert [group.number for group in run.groups] == list(range(1, GROUPS + 1))
    assert run.parts == ["accuracy", "format"]
    for group in run.groups:
        said = run.rows(group)
        assert [row["number"] for row in said] == [1, 2, 3] and {row["item"] for row in said} == {group.item}
        assert group.zero_variance == (len({row["reward"] for row in said}) == 1)
        assert not group.zero_variance or {row["advantage"] for row in said} == {0.0}


def test_the_page_shows_question_truth_and_boxes(here, logged, trained):
    about = here.get("/rollouts/about").json()
    assert about["groups"] == GROUPS
    assert [one["alarms"] for one in about["steps"]] == [
        [],
        ["since step 1 boxes 1 -> 9"],
    ]
    samples = {sample.id: sample for sample in trained[1].samples}
    for number in range(1, GROUPS + 1):
        shown = here.get(f"/rollouts/group/{number}").json()
        sample = samples[shown["id"]]
        assert shown["truth"] == sample.solution and shown["sizes"] == [list(size) for size in sample.sizes]
        assert shown["true_boxes"][0]["box"] == json.loads(sample.solution) and len(shown["completions"]) == SIZE
        assert {"value", "parsed", "reason"} == set(shown["completions"][0]["rewards"]["accuracy"])
        picture = here.get(f"/rollouts/group/{number}/picture/0")
        assert picture.content == trained[1].picture(sample).read_bytes()
        assert picture.headers["content-type"] == "image/png"


def test_what_is_not_there_gets_a_sentence(here):
    for address, said in {
        f"/rollouts/group/{GROUPS + 1}": f"group {GROUPS + 1}: the run has groups 1 to {GROUPS}",
        "/rollouts/group/0": f"group 0: the run has groups 1 to {GROUPS}",
        "/rollouts/group/1/picture/1": "group 1 has 1 pictures",
        "/rollouts/groups?first=9&last=3": "steps: from 9 to 3 is nothing; swap the two",
        "/rollouts/groups?least=1.5&most=1": "mean reward: from 1.5 to 1 is nothing",
        "/rollouts/groups?show=odd": "show: 'odd' is none of unread",
        "/rollouts/groups?first=x": "first: a number is needed",
        "/rollouts/groups?order=odd": "order: 'odd' is none of step",
        "/rollouts/groups?offset=x": "offset: a whole number is needed",
    }.items():
        reply = here.get(address)
        assert (reply.status_code, reply.text.startswith(said)) == (400, True), reply.text
    assert here.get("/rollouts/group/-1").status_code == 404


def test_filters_and_orders(logged):
    run = Run(logged)
    assert [group.step for group in chosen(run, {"show": "alarm"})] == [3] * 4
    assert [group.step for group in chosen(run, {"last": "2"})] == [1] * 4
    for name, holds in {
        "unread": lambda group: group.unread > 0,
        "wrong": lambda group: not any(group.judged),
        "truncated": lambda group: group.truncated > 0,
        "zero_variance": lambda group: len(set(group.rewards)) == 1,
    }.items():
        assert chosen(run, {"show": name}) == [group for group in run.groups if holds(group)]
    means = [group.mean for group in chosen(run, {"order": "lowest"})]
    assert means == sorted(means) and len(means) == GROUPS
    assert all(group.mean >= means[4] for group in chosen(run, {"least": str(means[4])}))
    assert chosen(run, {"order": "latest"})[0].step == 3


def test_filters_that_leave_nothing_say_which_it_is_due_to(here):
    found = here.get("/rollouts/groups?first=9&show=alarm").json()
    assert (found["total"], found["of"], found["alone"]) == (0, GROUPS, {"alarm": 4, "step": 0})
    assert here.get("/rollouts/groups?first=3").json()["alone"] == {}


def test_a_run_that_goes_on_or_is_taken_back_is_read_on(logged, tmp_path):
    lines = (logged / "rollouts.jsonl").read_text().splitlines(keepends=True)
    shutil.copytree(logged, tmp_path / "run")
    log = tmp_path / "run/rollouts.jsonl"
    log.write_text("".join(lines[:8]) + lines[8][:30])  # the third group not whole, and half a line
    run = Run(tmp_path / "run")
    assert [len(group.rewards) for group in run.groups] == [3, 3, 2]
    log.write_text("".join(lines))
    run.refresh()
    assert run.groups == Run(logged).groups
    log.write_text("".join(lines[:12]))
    run.refresh()
    assert run.groups == Run(logged).groups[:4]


def test_a_step_that_lands_while_the_log_is_read_is_whole(logged, tmp_path, monkeypatch):
    names, work = ("questions.jsonl", "rollouts.jsonl", "alarms.jsonl"), tmp_path / "run"  # as training writes them
    first = {name: [row for row in read_jsonl(logged / name) if row["step"] == 1] for name in names}
    work.mkdir()
    for name in names[:2]:
        write_jsonl(work / name, first[name])
    run, read = Run(work), Run._new

    def landing(self, name):
        yield from read(self, name)
        for one in names:
            with (work / one).open("ab") as file:
                file.write((logged / one).read_bytes()[file.tell() :])

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_new", landing)
        for _ in range(2):
            run.refresh()
            assert all(run.brief(group) for group in run.groups)
    assert run.groups == Run(logged).groups and run.alarms.keys() == {3}
    write_jsonl(work / "spare", first["questions.jsonl"])
    (work / "spare").replace(work / "questions.jsonl")  # as training takes it back, file by file
    run.refresh()
    assert len(run.questions) == len(first["questions.jsonl"]) < len(Run(logged).questions)


@pytest.mark.parametrize(
    ("name", "mend", "said"),
    [
        ("rollouts", lambda row: "{", r"rollouts.jsonl: at byte \d+: no JSON \(Expecting property name"),
        ("rollouts", lambda row: "7", "no JSON object; the file is no log of a training"),
        ("rollouts", lambda row: json.dumps(row | {"source": None}), "source: 'None' is not what training writes"),
        ("rollouts", lambda row: json.dumps(row | {"rewards": {"format": {}}}), r"no rewards.format.value; it is the"),
        ("questions", lambda row: json.dumps(row | {"conversations": []}), r"questions.jsonl: .* no question as train"),
        ("questions", lambda row: json.dumps(row | {"task": "vqa"}), "task: 'vqa' is not known; one of rec"),
        ("alarms", lambda row: json.dumps(row | {"step": "1"}), r"alarms.jsonl: at byte 0: step: '1' is not what"),
    ],
)
def test_a_damaged_line_is_named_by_file_place_and_field(logged, tmp_path, name, mend, said):
    shutil.copytree(logged, tmp_path / "run")
    path = tmp_path / f"run/{name}.jsonl"
    *whole, last = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in (*whole, mend(json.loads(last)))))
    with pytest.raises(ValueError, match=said) as fault:
        Run(tmp_path / "run")
    assert str(fault.value).count("\n") == 0


def test_parquet_holds_every_rollout_and_can_be_queried(logged, trained, tmp_path, here, capsys):
    main(["rollouts", str(logged.parent), "--parquet", str(tmp_path / "r.parquet")])
    assert f"{GROUPS * SIZE} rollouts in" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    for row, said in zip(table, read_jsonl(logged / "rollouts.jsonl"), strict=True):
        part = said["rewards"]["accuracy"]
        assert row["rewards/accuracy"] == part["value"] and row["rewards/accuracy_reason"] == part["reason"]
        assert row["number"] == said["number"] + 1  # as the page has it
        for key in ("step", "item", "completion", "reward", "advantage", "boxes", "labels", "problems"):
            assert row[key] == said[key]
        assert row["problem"] and row["truth"] and row["images"]
    idle = pq.read_table(tmp_path / "r.parquet", filters=[("zero_variance", "==", True)])
    assert idle.num_rows == SIZE * sum(group.zero_variance for group in Run(logged).groups)
    assert {row["group"] for row in table if row["alarms"]} == {5, 6, 7, 8}
    main(["rollouts", str(logged.parent), "--images", str(trained[1].images), "--parquet", str(tmp_path / "s.parquet")])
    assert here.get("/rollouts.parquet").content == (tmp_path / "s.parquet").read_bytes()


def test_pictures_stay_in_their_folder_and_may_have_moved(logged, tmp_path, trained, monkeypatch):
    shutil.copytree(logged, tmp_path / "run")
    shutil.copytree(trained[1].images, tmp_path / "moved")
    run = Run(tmp_path / "run", tmp_path / "moved")
    assert run.picture(run.groups[0], 0)[1] == "image/png"
    far = Run(tmp_path / "run")
    assert far.elsewhere() == [str(trained[1].images)] and run.elsewhere() == []
    with pytest.raises(ValueError, match=r"outside .*run; --images names it"):
        far.picture(far.groups[0], 0)
    with monkeypatch.context() as patch:
        patch.chdir(trained[1].images)  # a run that lies elsewhere may not name what lies here
        assert Run(tmp_path / "run").elsewhere() == far.elsewhere()
    rows = read_jsonl(tmp_path / "run/questions.jsonl")
    write_jsonl(tmp_path / "run/questions.jsonl", [row | {"images": str(tmp_path / "moved")} for row in rows])
    assert Run(tmp_path / "run").elsewhere() == [str(tmp_path / "moved")]
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        near = Run(tmp_path / "run")
    assert near.elsewhere() == [] and near.picture(near.groups[0], 0)[1] == "image/png"
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    write_jsonl(tmp_path / "run/questions.jsonl", [row | {"image": ["../secret.png"]} for row in rows])
    here = TestClient(page([], Run(tmp_path / "run", tmp_path / "moved"), ("testserver",)))
    reply = here.get("/rollouts/group/1/picture/0")
    assert reply.status_code == 400 and "leaves its folder" in reply.text


def test_the_log_itself_names_its_run(logged):
    assert Run(logged / "rollouts.jsonl").groups == Run(logged).groups


def test_a_folder_without_rollouts_and_an_older_log_are_refused(logged, tmp_path):
    with pytest.raises(SystemExit, match=r"no rollouts.jsonl in it; name a training's folder"):
        main(["rollouts", str(tmp_path)])
    write_jsonl(tmp_path / "rollouts.jsonl", [{"step": 1, "id": 0, "rewards": {}}])
    with pytest.raises(SystemExit, match=r"rollouts.jsonl: at byte 0: no item; it is the log of an older training"):
        main(["rollouts", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"--images .*: no such folder"):
        main(["rollouts", str(logged), "--images", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"--parquet .*: lies in the folder of RUN"):
        main(["rollouts", str(logged), "--parquet", str(logged / "r.parquet")])
