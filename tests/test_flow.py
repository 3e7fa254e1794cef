"""The flow over a small graph of its own, in a real Prefect server: order, failure, retries, what is left unchanged."""

import json
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.settings import get_current_settings

from flows import following, pipeline, running, showing
from flows.following import spell
from flows.graph import read_graph
from flows.supervisor import MARK, POOL, engines
from flows.ui import server, server_settings
from tests.conftest import ROOT, default_params, environment, free_port, run

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


def flow(project, api, *options, **variables):
    more = {"PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)} | variables
    command = ["python", "-m", "flows.pipeline", *options]
    return subprocess.run(command, cwd=project, env=environment(**more), capture_output=True, text=True)


def ask(api, what, body):
    request = urllib.request.Request(
        f"{api}/{what}/filter", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def last_run(api):
    """State of the newest flow run, and {task run name: (state name, runs)}."""
    newest = ask(api, "flow_runs", {"sort": "START_TIME_DESC", "limit": 1})[0]
    tasks = ask(api, "task_runs", {"task_runs": {"flow_run_id": {"any_": [newest["id"]]}}})
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


def test_a_server_that_prefect_starts_itself_has_time_for_its_first_start():

    assert get_current_settings().server.ephemeral.startup_timeout_seconds >= 120


def test_a_failing_stage_fails_the_run_at_once_and_leaves_the_others_results(project, api):
    done = flow(project, api, "--retries", "3", "--delay", "1")
    assert done.returncode != 0
    state, tasks = last_run(api)
    assert state == "Failed"
    assert tasks["breaks"] == ("Failed", 1) and (project / "tries.log").read_text() == "tried\n"
    assert tasks["first"][0] == tasks["stands"][0] == "Completed"
    assert "last" not in tasks  # named only when it starts
    assert (project / "three").exists() and not (project / "four").exists()
    assert "the reason" in done.stdout + done.stderr
    (shown,) = [one["data"] for one in ask(api, "artifacts", {}) if one["key"] == "failure" and one["flow_run_id"]]
    assert "failed: breaks; not run because of it: last" in shown and "breaks: the reason" in shown

    (project / "mended").touch()
    assert flow(project, api).returncode == 0
    state, tasks = last_run(api)
    assert state == "Completed"
    assert tasks["first"][0] == tasks["stands"][0] == "Unchanged"
    assert tasks["breaks"][0] == tasks["last"][0] == "Completed"
    assert (project / "four").read_text() == "two\nthree\n"

    assert flow(project, api).returncode == 0
    assert {state for state, _ in last_run(api)[1].values()} == {"Unchanged"}


@pytest.mark.parametrize(
    "fault",
    [
        "exit 75",
        pytest.param("kill -9 $$", marks=pytest.mark.slow),  # by the kernel, for want of memory
        pytest.param(  # under torchrun
            "mkdir -p work/records; echo out of memory > work/records/breaks-transient.txt; exit 1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failure_that_may_mend_itself_is_tried_again(project, api, fault):
    tried = f"echo tried >> tries.log; test $(wc -l < tries.log) -gt 2 && echo two > two && exit 0; {fault}"
    (project / "dvc.yaml").write_text(f"stages:\n  breaks: {{cmd: '{tried}', outs: [two]}}\n")
    assert flow(project, api, "--retries", "1", "--delay", "1").returncode != 0
    assert last_run(api)[1]["breaks"] == ("Failed", 2)
    assert flow(project, api, "--retries", "1", "--delay", "1").returncode == 0
    assert last_run(api)[1]["breaks"] == ("Completed", 1)


@pytest.mark.parametrize(
    "said, for_now",
    [
        ("ERROR: failed to reproduce 'grpo': failed to run: python -m x, exited with -9", True),
        ("failed to run: torchrun x, exited with 137", True),
        ("  traceback : Signal 9 (SIGKILL) received by PID 7", True),
        ("failed to run: python -m x, exited with 1", False),
    ],
)
def test_a_stage_that_was_killed_may_have_been_short_of_memory(said, for_now, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fault = running.fault_of("grpo", ["grpo: step 3 of 8", said])
    assert isinstance(fault, running.StageFailedForNow) == for_now
    assert ("it was killed" in str(fault)) == for_now


@pytest.mark.slow
def test_a_training_waits_for_its_device_and_refuses_one_without_a_limit(project, api):
    """A worker that names its device gets a slot of its limit; a limit that is not there is no licence."""
    (project / "dvc.yaml").write_text("stages:\n  grpo: {cmd: echo one > one, outs: [one]}\n")
    done = flow(project, api, VLMR1_DEVICE="cuda:0")
    assert done.returncode != 0 and "training-cuda-0" in done.stdout + done.stderr
    run(["python", "-c", "from flows.deploy import make_limit; make_limit('cuda:0')"], ROOT, PREFECT_API_URL=api)
    assert flow(project, api, VLMR1_DEVICE="cuda:0").returncode == 0


def test_a_run_whose_process_is_gone_is_settled_and_one_that_lives_is_let_alone(api, monkeypatch):
    """As after worker and run were killed together: the pool's one place would be taken for ever."""
    from prefect import flow as a_flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Cancelling, Pending, Running

    from flows.deploy import make_pool
    from flows.settle import settle_cut_off

    mark = f"settle-{os.getpid()}"
    monkeypatch.setenv(MARK, mark)
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))  # and killed before its limit was set
        make_pool()
        assert client.read_work_pool(POOL).concurrency_limit == 1
        deployment = client.create_deployment(
            client.create_flow(a_flow(print, name="cut")), name="cut", work_pool_name=POOL
        )
        states = {"gone": Running(), "submitting": Pending(), "asked": Cancelling(), "lives": Running()}
        runs = {
            name: client.create_flow_run_from_deployment(deployment, state=state).id for name, state in states.items()
        }
        sleep = ["python", "-c", "import time; time.sleep(60)", "prefect.engine"]
        variables = environment(PREFECT__FLOW_RUN_ID=str(runs["lives"])) | {MARK: mark}
        with subprocess.Popen(sleep, env=variables) as engine:
            wait_for(lambda: str(runs["lives"]) in engines(mark))
            assert settle_cut_off([str(runs["gone"])]) == 1
            assert settle_cut_off() == 2
            found = {name: client.read_flow_run(run).state.name for name, run in runs.items()}
            assert found == {"gone": "Crashed", "submitting": "Crashed", "asked": "Cancelled", "lives": "Running"}
            engine.kill()
        assert settle_cut_off() == 1


WATCHED = """
import json, pathlib, time
work = pathlib.Path("work/grpo")
work.mkdir(parents=True)
for step in range(1, 9):
    with (work / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "steps": 8, "loss": 1 / step, "reward": step / 8}) + chr(10))
    if step == 2:
        alarm = {"step": 2, "kind": "boxes", "message": "since step 1 boxes 1 -> 9"}
        (work / "alarms.jsonl").write_text(json.dumps(alarm) + chr(10))
    time.sleep(0.4)
work.rename("logs/grpo")
"""


def test_a_training_shows_its_progress_curves_and_alarms_and_tells_of_them(project, api):
    (project / "train.py").write_text(WATCHED)
    (project / "logs").mkdir()
    (project / "dvc.yaml").write_text("stages:\n  grpo: {cmd: python train.py, outs: [logs/grpo]}\n")
    assert flow(project, api).returncode == 0
    shown = {one["key"]: one for one in ask(api, "artifacts", {"limit": 200})}
    assert {"grpo-progress", "grpo-alarms", "grpo-curves"} <= set(shown)
    assert shown["grpo-progress"]["data"] == 100 and "step 8 of 8" in shown["grpo-progress"]["description"]
    assert "step 2: since step 1 boxes 1 -> 9" in shown["grpo-alarms"]["data"]
    assert "data:image/png;base64," in shown["grpo-curves"]["data"]
    wait_for(lambda: ask(api, "events", {"filter": {"event": {"name": ["vlmr1.alarm"]}}})["events"])


def test_a_server_that_fails_once_fails_neither_watcher_nor_alarms_nor_a_stage(tmp_path, monkeypatch, caplog):
    """And a training that goes on after a failure tells no alarm a second time."""
    told, work = [], tmp_path / "work/grpo"
    monkeypatch.chdir(tmp_path)
    work.mkdir(parents=True)
    monkeypatch.setattr(following, "SECONDS", 0.01)
    monkeypatch.setattr(following, "alarm_raised", lambda stage, alarm: told.append(alarm["step"]))
    logger = logging.getLogger("shown")
    monkeypatch.setattr(showing, "get_run_logger", lambda: logger)

    def failing(*_, **__):
        raise ConnectionError("http://u:planted@localhost is away")

    for name in ("following.create_progress_artifact", "showing.create_markdown_artifact"):
        monkeypatch.setattr(f"flows.{name}", failing)
    monkeypatch.setattr(following, "_curves", failing)
    steps = [2, 4]
    for again in range(2):  # the second time as after a retry: with the first one's files, and one alarm more
        done = threading.Event()
        watcher = threading.Thread(target=following.follow_training, args=("grpo", done))
        watcher.start()
        (work / "metrics.jsonl").write_text('{"step": 2, "steps": 8, "loss": 1}\n')
        lines = [json.dumps({"step": step, "kind": "boxes", "message": "more"}) + "\n" for step in steps[: again + 1]]
        (work / "alarms.jsonl").write_text("".join(lines))
        wait_for(lambda count=again + 1: len(told) == count)
        done.set()
        watcher.join()
    assert told == steps
    assert "is away" in caplog.text and "planted" not in caplog.text
    monkeypatch.setitem(pipeline.AFTER, "report", failing)
    pipeline._show("report")


def test_a_server_that_is_away_when_a_training_begins_or_ends_fails_it_not(monkeypatch, caplog):
    calls = []

    @contextmanager
    def concurrency(*_, **__):
        calls.append(1)
        if len(calls) == 1:
            raise httpx.ConnectError("All connection attempts failed")
        yield
        raise httpx.ConnectError("All connection attempts failed")

    logger = logging.getLogger("device")
    monkeypatch.setenv(running.DEVICE, "gpu")
    monkeypatch.setattr(running, "concurrency", concurrency)
    for module in (running, showing):
        monkeypatch.setattr(module, "get_run_logger", lambda: logger)
    with caplog.at_level(logging.INFO, "device"), running.device_for("grpo"):
        assert len(calls) == 2
    assert "waiting for the server" in caplog.text and "training-gpu is free again" in caplog.text
    assert not running._device.locked()
    lasting = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"  # else a server that is killed forgets who holds what
    assert server_settings()[lasting].endswith("filesystem")


def test_a_length_of_time_is_said_as_a_person_would():
    assert [spell(seconds) for seconds in (3.4, 89, 600, 5400, 90000)] == ["3 s", "89 s", "10 min", "1.5 h", "25.0 h"]


TRAINING = """
import signal, sys, time, pathlib
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
pathlib.Path("started").touch()
for step in range(60):
    time.sleep(0.5)
    if asked:
        time.sleep(1)  # the step in hand is finished
        pathlib.Path("checkpoint").write_text(str(step))
        sys.exit(143)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_lets_its_training_leave_a_checkpoint(project, api, how):
    (project / "train.py").write_text(TRAINING)
    (project / "dvc.yaml").write_text("stages:\n  grpo: {cmd: python train.py, outs: [{one: {persist: true}}]}\n")
    more = {"PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(["python", "-m", "flows.pipeline"], cwd=project, env=environment(**more))
    wait_for(lambda: (project / "started").exists())
    process.send_signal(how)
    assert process.wait(30) != 0
    wait_for(lambda: (project / "checkpoint").exists())
    wait_for(lambda: not [p for p in psutil.process_iter() if p.is_running() and _in(p, project)])


def _in(process, folder):
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder)
    except psutil.Error:
        return False


def wait_for(true, seconds=40):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED12",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-key-of-a-bucket",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "AWS_ENDPOINT_URL": "http://user:planted-password@127.0.0.1:9",
    "VLMR1_NOTIFY_URL": "https://hooks.example/planted-path",
    "HF_TOKEN": "hf_plantedplantedplantedplantedplanted",
}
PUBLISHING = """
import sys
from pathlib import Path
from tests.releases import make_checkpoint, release
from vlmr1.settings import load_params
from vlmr1.stages import run_stage
run_stage("publish", lambda params: release("s3://bucket/releases", make_checkpoint(Path("models/grpo"))))
"""


def test_a_run_that_fails_at_its_store_says_no_secret_anywhere(project, api):
    """Not to who started it, nor in DVC's files, the stage's records, the server's logs, artifacts and database."""
    (project / "publish.py").write_text(PUBLISHING)
    (project / "params.yaml").write_text(default_params())
    (project / "dvc.yaml").write_text("stages:\n  publish: {cmd: python publish.py, deps: [publish.py], outs: [out]}\n")
    done = flow(project, api, "--retries", "0", **SECRETS, AWS_MAX_ATTEMPTS="1", AWS_DEFAULT_REGION="us-east-1")
    assert done.returncode != 0 and "s3://bucket/releases" in done.stdout + done.stderr
    (run_id,) = [run["id"] for run in ask(api, "flow_runs", {"sort": "START_TIME_DESC", "limit": 1})]
    wait_for(lambda: "s3://bucket/" in json.dumps(ask(api, "logs", {"logs": {"flow_run_id": {"any_": [run_id]}}})))
    kept = [path for folder in (project, Path(os.environ["PREFECT_HOME"])) for path in folder.rglob("*")]
    said = {str(path): path.read_bytes() for path in kept if path.is_file()} | {"said": done.stdout.encode()}
    said |= {"errors": done.stderr.encode(), "artifacts": json.dumps(ask(api, "artifacts", {"limit": 200})).encode()}
    assert any(name.endswith("prefect.db") for name in said)
    found = {(name, key) for name, text in said.items() for key, value in SECRETS.items() if value.encode() in text}
    found |= {(name, "password") for name, text in said.items() if b"planted-password" in text}
    assert not found
