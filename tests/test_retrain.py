"""Retraining a real repository on a real server, over a graph that is cheap: what is allowed, refused, left alone."""

import json
import logging
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import flows.retrain as retraining
from flows import judging
from flows.checkout import check, copy_of
from flows.notify import data_updated, known_data
from flows.retrain import run_name
from flows.ui import server
from tests.conftest import ROOT, default_params, environment, free_port, run
from tests.releases import make_checkpoint, other, release
from tests.test_flow import ask, wait_for
from vlmr1.files import sha256
from vlmr1.release.log import read_log
from vlmr1.release.registry import promote, promoted, refuse, releases, roll_back
from vlmr1.release.store import open_store

# Stands for data, training, evaluation and publishing: the data says how many of a hundred answers are right.
MAKE = """
import json
from pathlib import Path
from tests.releases import make_checkpoint, other, release
from vlmr1.files import write_json
from vlmr1.release.registry import promoted, releases
from vlmr1.release.store import open_store
from vlmr1.settings import load_params
from vlmr1.stages.promoted import place_of

def answer(folder, right):
    for source in ("larger", "in_domain", "new_colours"):
        rows = [{"index": i, "hit": i < right, "image": [f"{i}.png"]} for i in range(100)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{source}-greedy.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
        figures = {s: {"greedy": {"judged": "acc_0.5"}} for s in ("larger", "in_domain", "new_colours")}
        write_json(folder / "figures.json", figures)

right, params = int(Path("data/right").read_text()), load_params()
row = {"id": 1, "image": [], "conversations": [{"value": "q"}, {"value": "a"}], "task": "rec", "source": "larger",
       "split": "larger", "accu_reward_method": "iou", "size": []}
write_json(Path("data/converted/evaluate/sources.json"), {"larger": {"images": "data", "jsonl": "larger.jsonl"}})
Path("data/converted/evaluate/larger.jsonl").write_text(json.dumps(row) + "\\n")
answer(Path("predictions/grpo"), right)
answer(Path("predictions/base"), 40)
store = open_store(params.publish.store)
incumbent = promoted(store, "toy", "prod")
if incumbent:  # as if it had been asked before
    theirs = next(r for r in releases(store, "toy") if r.version == incumbent)
    answer(place_of(params, incumbent), theirs.manifest["about"]["params"]["right"])
if not Path("models/grpo").exists():
    make_checkpoint(Path("models/grpo"))
version = release(params.publish.store, Path("models/grpo"), other(right=right))
write_json(Path("reports/published.json"), {"name": "toy", "version": version})
write_json(Path("metrics/made.json"), {"right": right})
"""
GRAPH = """
stages:
  made:
    cmd: python make.py
    deps: [data/right, make.py]
    params: [publish]
    outs: [predictions, reports/published.json]
    metrics: [metrics/made.json: {cache: false}]
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with server(port=free_port()) as url:
            yield url


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(project, the file that its data is imported from)."""
    folder = tmp_path_factory.mktemp("retrain")
    project, origin = folder / "project", folder / "origin"
    project.mkdir()
    (project / "make.py").write_text(MAKE)
    (project / "dvc.yaml").write_text(GRAPH)
    (project / "params.yaml").write_text(default_params().replace("name: tiny-rec", "name: toy"))
    (project / ".gitignore").write_text(
        "/.retrain/\n/.retrain.lock\n/work/\n/models/\n/releases/\n/.dvc-storage/\n/data/converted/\n"
    )
    (project / ".dvcignore").write_text("/.retrain\n")
    origin.write_text("70")
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.name", "t"],
        ["git", "config", "user.email", "t@localhost"],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "-d", "local", "../.dvc-storage"],
        ["mkdir", "data"],
        ["dvc", "import-url", "-q", str(origin), "data/right"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "-m", "start"],
    ):
        run(command, project / ".dvc" if "remote" in command else project)
    return project, origin


def retrain(place, api, *options):
    """What the command says last."""
    more = {"PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)}
    command = ["python", "-m", "flows.retrain", "--name", "nightly", *options]
    done = subprocess.run(command, cwd=place[0], env=environment(**more), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout.splitlines()[-1]


def everything(project):
    """The user's working tree to the byte, git's index, what is checked out, and git's own opinion of it."""
    kept = {}
    for path in project.rglob("*"):
        top = path.relative_to(project).parts[0]
        if path.is_file() and top not in (".git", ".dvc", ".retrain", ".retrain.lock", ".dvc-storage", "releases"):
            kept[path] = sha256(path)
    kept |= {name: sha256(project / ".git" / name) for name in ("HEAD", "index", "config")}
    return kept, run(["git", "status", "--porcelain"], project), run(["git", "rev-parse", "HEAD"], project)


def branches(project):
    return run(["git", "branch", "--format", "%(refname:short)"], project).split()


def test_retraining_promotes_what_passes_and_keeps_what_does_not(place, api):
    project, origin = place
    store = open_store(str(project / "releases"))
    (project / "make.py").write_text(MAKE + "# a change that nobody has committed\n")
    before = everything(project)

    said = retrain(place, api)  # nothing is promoted: the base is what must be beaten
    assert "Promoted to prod" in said and "compared with the base" in said
    first = promoted(store, "toy", "prod")
    (branch,) = [name for name in branches(project) if name.startswith("retrain/nightly-")]
    assert json.loads(run(["git", "show", f"{branch}:metrics/made.json"], project)) == {"right": 70}
    assert any((project / ".dvc-storage").rglob("*.dir"))  # pushed, to the project's remote

    assert "Nothing to do: the same data, code, parameters and promoted version gave retrain/nightly-" in retrain(
        place, api
    )

    origin.write_text("72")
    said = retrain(place, api)  # better, but within noise
    (run_of_it,) = ask(api, "flow_runs", {"flow_runs": {"state": {"name": {"any_": ["Refused"]}}}})
    assert run_of_it["name"] == "retrain-nightly" and run_of_it["state_type"] == "CANCELLED"  # grey, not green or red
    assert [one["state_name"] for one in ask(api, "task_runs", {}) if one["name"] == "gate"].count("Refused") == 1
    assert "Refused" in said and f"compared with toy@{first}: larger: wanted is better by more than noise" in said
    assert promoted(store, "toy", "prod") == first
    newest = releases(store, "toy")[-1]
    assert (
        newest.version != first
        and newest.notes[-1].event == "refused"
        and "may well be noise" in newest.notes[-1].reason
    )
    (refused,) = [name for name in branches(project) if name.startswith("refused/nightly-")]
    assert "may well be noise" in run(["git", "log", "-1", "--format=%B", refused], project)
    assert "path: right" in run(["git", "show", f"{refused}:data/right.dvc"], project)

    assert everything(project) == before
    shown = {one["key"]: one["data"] for one in ask(api, "artifacts", {"sort": "CREATED_DESC", "limit": 200})[::-1]}
    assert "## Refused" in shown["outcome"] and "may well be noise" in shown["outcome"]
    there = f"{project / 'releases'}/toy/{newest.version}"
    assert there in shown["release"] and "file://" not in shown["release"]
    assert f"vlmr1 releases show toy@{newest.version} --store {project / 'releases'}" in shown["release"]
    asked = {"filter": {"event": {"name": ["vlmr1.gate.refused"]}}}
    wait_for(lambda: ask(api, "events", asked)["events"])
    (event,) = ask(api, "events", asked)["events"]
    assert event["payload"]["run"] == f"{api.removesuffix('/api')}/runs/flow-run/{run_of_it['id']}"


@pytest.mark.parametrize(
    "revision, recipe, sets, said",
    [
        ("no-such", None, [], "revision no-such: no commit of"),
        (None, "recipes/none.yaml", [], "recipes/none.yaml: no such recipe"),
        (None, "mine.yaml", [], "mine.yaml: not in the commit that is retrained on; commit it"),
        (None, None, ["grpo.sed=2"], "sets: grpo.sed=2: grpo.sed: params.yaml has no such key"),
        (None, None, ["grpo.seed=2", "grpo.steps=-2"], "sets: grpo.steps=-2: grpo.steps: should be"),
    ],
)
def test_what_a_retraining_would_stop_at_is_said_before_a_server_starts(place, revision, recipe, sets, said):
    project, _ = place
    (project / "mine.yaml").write_text("grpo: {seed: 2}")
    with pytest.raises(ValueError, match=re.escape(said)):
        check(project, revision, recipe, sets)
    (project / "mine.yaml").unlink()
    check(project, None, None, ["grpo.seed=2"])


def test_new_data_is_a_source_or_what_dvc_tracks(place, monkeypatch):
    monkeypatch.chdir(place[0])
    assert known_data()[0] == "warmup" and known_data()[-1] == "data/right"
    with pytest.raises(ValueError, match=r"data/left: no source .* nothing that DVC tracks; there is: "):
        data_updated("data/left")


@pytest.mark.parametrize(
    "recipe, sets, name",
    [
        (None, [], "retrain-nightly"),
        ("recipes/smoke.yaml", ["grpo.seed=2"], "retrain-nightly smoke grpo.seed=2"),
        (None, [f"grpo.rewards={'x' * 200}"], f"retrain-nightly grpo.rewards={'x' * 90}…"),
    ],
)
def test_a_run_is_called_after_what_it_was_given(monkeypatch, recipe, sets, name):
    given = SimpleNamespace(parameters={"name": "nightly", "recipe": recipe, "sets": sets})
    monkeypatch.setattr("flows.retrain.flow_run", given)
    assert run_name() == name


def test_the_copy_takes_a_commit_that_no_branch_has(place):
    """As a server for tests has it checked out."""
    project, _ = place
    branch = run(["git", "symbolic-ref", "--short", "HEAD"], project).strip()
    run(["git", "checkout", "-q", "--detach"], project)
    run(["git", "commit", "-q", "--allow-empty", "-m", "of no branch"], project)
    commit = run(["git", "rev-parse", "HEAD"], project).strip()
    try:
        with copy_of(project, None, print) as taken:
            assert taken == commit == run(["git", "rev-parse", "HEAD"], project / ".retrain").strip()
    finally:
        run(["git", "checkout", "-q", branch], project)


@pytest.fixture
def concluded(tmp_path, monkeypatch):
    """(store, two versions, a function that concludes a verdict, whom it told) in a project's folder."""
    told = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retraining, "get_run_logger", lambda: logging.getLogger())
    monkeypatch.setattr(retraining, "show_release", lambda *_: None)
    monkeypatch.setattr(retraining, "candidate_refused", lambda release, says: told.append(release))
    (tmp_path / "params.yaml").write_text(default_params())
    checkpoint, url = make_checkpoint(tmp_path / "checkpoint"), str(tmp_path / "releases")
    versions = [release(url, checkpoint, other(right=right)) for right in (1, 2)]

    def conclude(outcome, version, incumbent):
        verdict = judging.Verdict("toy", version, outcome, incumbent, "", None, "why")
        return retraining.conclude.fn(url, verdict, "branch", True)

    return open_store(url), versions, conclude, told


def test_a_label_that_somebody_moved_meanwhile_is_not_taken_and_the_candidate_judged_again(concluded):
    store, (first, second), conclude, _ = concluded
    promote(store, "toy", first, "prod")  # since the candidate was compared with the base
    assert conclude(judging.PASSED, second, None) is None and promoted(store, "toy", "prod") == first
    assert conclude(judging.PASSED, second, first) == "Promoted to prod" and promoted(store, "toy", "prod") == second


def test_a_refusal_is_noted_and_told_once(concluded):
    store, (first, _), conclude, told = concluded
    for _ in range(2):
        assert conclude(judging.REFUSED, first, None) == "Refused"
    assert told == [f"toy@{first}"] and [e.event for e in read_log(store, "toy")].count("refused") == 1


def test_what_was_rolled_back_is_not_promoted_again_by_itself(concluded):
    store, (first, second), _, _ = concluded
    promote(store, "toy", first, "prod")
    promote(store, "toy", second, "prod")
    roll_back(store, "toy", "prod", "it saw ghosts")
    Path("reports").mkdir()
    Path("reports/published.json").write_text(json.dumps({"name": "toy", "version": second}))
    for _ in range(2):
        verdict = judging.judge(force=False)
        assert verdict.outcome == judging.REFUSED and "was rolled back (it saw ghosts)" in verdict.says
        refuse(store, "toy", second, verdict.says)
    with pytest.raises(FileNotFoundError):  # it is compared, for which nothing is here
        judging.judge(force=True)


@pytest.mark.slow
def test_promotion_can_be_left_out_and_force_repeats_what_was_done(place, api):
    project, origin = place
    store = open_store(str(project / "releases"))
    origin.write_text("60")
    retrain(place, api)
    origin.write_text("95")
    before = promoted(store, "toy", "prod")
    assert "Passed" in retrain(place, api, "--no-promotion") and promoted(store, "toy", "prod") == before
    assert "Promoted to prod" in retrain(place, api)  # the wish is another, so it is no repetition
    assert promoted(store, "toy", "prod") == releases(store, "toy")[-1].version
    before = branches(project)
    assert "Already promoted" in retrain(place, api, "--force")
    assert branches(project) == before  # the same state has one branch
    back = roll_back(store, "toy", "prod", "it saw ghosts")
    assert "Refused" in (said := retrain(place, api)) and "was rolled back (it saw ghosts)" in said
    assert promoted(store, "toy", "prod") == back
    assert "Promoted to prod" in retrain(place, api, "--force")
