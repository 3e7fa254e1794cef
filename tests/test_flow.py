"""The flow over a small graph of its own, in a real Prefect server: order, failure, retries, what is left unchanged."""

import json
import subprocess
import urllib.request

import pytest

from flows.pipeline import read_graph
from flows.ui import server
from tests.conftest import ROOT, environment, free_port, run

GRAPH = """
stages:
  first: {cmd: echo one > one, outs: [one]}
  breaks:
    cmd: 'echo tried >> tries.log && echo "breaks: the reason" && test -f mended && echo two > two'
    deps: [one]
    outs: [two]
  stands: {cmd: echo three > three, deps: [one], outs: [three]}
  last: {cmd: cat two three > four, deps: [two, three], outs: [four]}
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with server(port=free_port()) as url:
            yield url


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    run(["git", "init", "-q"], tmp_path)
    run(["dvc", "init", "-q"], tmp_path)
    return tmp_path


def flow(project, api, *options):
    more = {"PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)}
    command = ["python", "-m", "flows.pipeline", *options]
    return subprocess.run(command, cwd=project, env=environment(**more), capture_output=True, text=True)


def last_run(api):
    """State of the newest flow run, and {task run name: (state name, runs)}."""

    def ask(what, body):
        request = urllib.request.Request(
            f"{api}/{what}/filter", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    newest = ask("flow_runs", {"sort": "START_TIME_DESC", "limit": 1})[0]
    tasks = ask("task_runs", {"task_runs": {"flow_run_id": {"any_": [newest["id"]]}}})
    return newest["state_name"], {t["name"]: (t["state_name"], t["run_count"]) for t in tasks}


def test_the_graph_is_dvcs_own(project, monkeypatch):
    monkeypatch.chdir(project)
    waits, changed = read_graph()
    assert {name: set(upstream) for name, upstream in waits.items()} == {
        "first": set(),
        "breaks": {"first"},
        "stands": {"first"},
        "last": {"breaks", "stands"},
    }
    assert list(waits).index("first") == 0 and list(waits)[-1] == "last"
    assert changed == set(waits)


def test_a_folder_without_a_pipeline_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="DVC cannot read the pipeline"):
        read_graph()


def test_a_failing_stage_fails_the_run_after_its_retries_and_leaves_the_others_results(project, api):
    done = flow(project, api, "--retries", "1")
    assert done.returncode != 0
    state, tasks = last_run(api)
    assert state == "Failed"
    assert tasks["breaks"] == ("Failed", 2) and (project / "tries.log").read_text() == "tried\n" * 2
    assert tasks["first"][0] == tasks["stands"][0] == "Completed"
    assert "last" not in tasks  # named only when it starts
    assert (project / "three").exists() and not (project / "four").exists()
    assert "the reason" in done.stdout + done.stderr

    (project / "mended").touch()
    assert flow(project, api).returncode == 0
    state, tasks = last_run(api)
    assert state == "Completed"
    assert tasks["first"][0] == tasks["stands"][0] == "Unchanged"
    assert tasks["breaks"][0] == tasks["last"][0] == "Completed"
    assert (project / "four").read_text() == "two\nthree\n"

    assert flow(project, api).returncode == 0
    assert {state for state, _ in last_run(api)[1].values()} == {"Unchanged"}
