"""What `make up` keeps running: started again when it dies, ended together, nobody else's process touched.

Slow, with a real server and worker: deployments and their schedules, notifications, a cancelled training, a restart.
"""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import psutil
import pytest

from flows.log import without_paths
from flows.supervisor import KEEPER, MARK, Kept, alone, end_all, engines, keeper, note, ours, read_note, tops
from flows.ui import address, server_settings, taken
from tests.conftest import ROOT, environment, free_port, make_project, run
from tests.test_flow import wait_for
from vlmr1.work import fingerprint_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
NEST = [sys.executable, "-c", f"import subprocess; subprocess.run({SLEEP!r})"]


def test_what_dies_is_started_again_and_what_keeps_dying_ever_later():
    kept = Kept("x", [sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))
    kept.look()
    first = kept.process
    first.wait()
    kept.look()
    assert kept.process is None and kept.wait == 2.0 and kept.due > time.monotonic()
    kept.due = 0
    kept.look()
    assert kept.process.pid != first.pid
    kept.end()


def test_ours_are_found_by_their_mark_whoever_their_parent_is_and_nobody_else_is_ended(tmp_path):
    mark = f"test-{os.getpid()}"
    stranger = subprocess.Popen(SLEEP)
    mine = subprocess.Popen(NEST, env=os.environ | {MARK: mark})
    wait_for(lambda: len(ours(mark)) == 2)
    assert [process.pid for process in tops(ours(mark))] == [mine.pid]
    mine.kill()
    mine.wait()
    assert len(ours(mark)) == 1  # an orphan is still ours
    end_all(ours(mark), 10)
    assert ours(mark) == [] and stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_what_comes_before_another_start_holds_it_back_until_it_succeeds():
    tried = []

    def again():
        tried.append(1)
        if len(tried) < 2:
            raise RuntimeError("not yet")

    kept = Kept("x", SLEEP, dict(os.environ), again=again)
    kept.look()
    assert tried == []  # nothing of the first start
    kept.process.kill()
    kept.process.wait()
    kept.look()
    for starts in (False, True):
        kept.due = 0
        kept.look()
        assert (kept.process is not None) == starts
    kept.end()


def test_a_note_names_its_keeper_by_the_mark_and_nobody_where_its_number_is_taken(tmp_path):
    """No clock takes part, which somebody may have moved since."""
    path = tmp_path / "up.json"
    assert read_note(path) is None
    mine = subprocess.Popen([*SLEEP, KEEPER], env=os.environ | {MARK: "m"})
    wait_for(lambda: KEEPER in psutil.Process(mine.pid).cmdline())
    note(path, "m", mine.pid, url="u")
    noted = read_note(path)
    assert "started" not in noted and keeper(noted).pid == mine.pid
    assert keeper(noted | {"mark": "another"}) is None and keeper(noted | {"pid": os.getpid()}) is None
    mine.kill()
    wait_for(lambda: keeper(noted) is None)  # before anybody has noticed its end
    mine.wait()
    assert keeper(noted) is None


def test_one_keeper_at_a_time_and_the_second_touches_nothing(tmp_path):
    with alone(tmp_path / ".prefect/up.lock"):
        noted = tmp_path / ".prefect/up.json"
        note(noted, "m", os.getpid(), url="u", ready=True)
        before = noted.read_bytes()
        (tmp_path / "prefect.yaml").touch()
        command = [sys.executable, "-m", KEEPER, "--stay", "--port", str(free_port())]
        variables = environment(PREFECT_HOME=str(tmp_path / ".prefect"), PYTHONPATH=str(ROOT))
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode == 1 and "another `make up` keeps this project already" in done.stderr
        assert noted.read_bytes() == before
    with alone(tmp_path / ".prefect/up.lock"):
        pass


def test_a_server_is_reached_where_it_listens_and_its_pages_ask_where_they_came_from():
    assert address("127.0.0.1", 1) == address("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert address("::1", 1) == address("::", 1) == "http://[::1]:1" and address("box", 1) == "http://box:1"
    assert server_settings()["PREFECT_SERVER_UI_API_URL"] == "/api"
    assert not taken("::1", free_port()) and not taken("no.such.host.invalid", 1)


def test_the_log_names_a_webhook_by_its_host_alone_and_is_its_owners(tmp_path):
    """Whatever writes to it, who fails to reach the webhook too, whose whole address is a key."""
    path = tmp_path / "up.log"
    path.touch(0o644)
    said = "httpx.HTTPStatusError: '404 Not Found' for url 'http://127.0.0.1:1/hooks/planted?key=planted'\n"
    said += "run http://u:planted@127.0.0.1:2/runs/1 https://hooks.example/planted-path\n"
    command = [sys.executable, "-m", "flows.log", str(path), "http://127.0.0.1:2"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment(PYTHONPATH=str(ROOT)), text=True)
    process.communicate(said)
    text = path.read_text()
    assert "planted" not in text and "for url 'http://127.0.0.1:1/***'" in text and "https://hooks.example/***" in text
    assert "http://127.0.0.1:2/api" in without_paths("at http://127.0.0.1:2/api", "http://127.0.0.1:2")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def mailbox():
    """(URL, what was posted there)."""
    posted = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hooks/planted-secret", posted
    server.shutdown()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("up") / "project")
    run(["git", "config", "user.name", "t"], folder)
    run(["git", "config", "user.email", "t@localhost"], folder)
    return folder


@pytest.fixture(scope="module")
def up(project, mailbox):
    """(project, port, a function that runs `python -m flows.up` with options), all of it down at the end."""
    port = free_port()
    variables = {"PREFECT_HOME": str(project / ".prefect"), "VLMR1_NOTIFY_URL": mailbox[0]}
    variables["PYTHONPATH"] = f"{project}:{os.environ.get('PYTHONPATH', '')}"

    def call(*options):
        return run([sys.executable, "-m", "flows.up", "--port", str(port), *options], project, **variables)

    call()
    yield project, port, call
    call("--down")


def ask(port, what, body, **more):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{what}", json.dumps(body).encode(), {"content-type": "application/json"}, **more
    )
    for again in (True, True, True, False):
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code != 503 or not again:  # SQLite is busy at times
                raise
        time.sleep(2)
    raise AssertionError("unreachable")


def start(port, deployment, **parameters):
    """The id of a new run of a deployment."""
    (found,) = ask(port, "deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
    return ask(port, f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]


def state(port, run_id):
    (found,) = ask(port, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return found["state_name"]


@pytest.mark.slow
def test_deployments_schedules_limit_and_notifications_are_there_and_told_of(up, mailbox):
    project, port, call = up
    deployments = {d["name"]: d for d in ask(port, "deployments/filter", {})}
    assert set(deployments) == {"nightly", "on-new-data", "manual"}
    assert "training-local" in [limit["name"] for limit in ask(port, "v2/concurrency_limits/filter", {})]
    wait_for(lambda: ask(port, "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}), 90)
    said = call()
    assert "already up" in said and f"export PREFECT_API_URL=http://127.0.0.1:{port}/api" in said
    names = [one["name"] for one in ask(port, "automations/filter", {})]
    assert sorted(names) == ["vlmr1 alarm", "vlmr1 candidate refused", "vlmr1 new data", "vlmr1 run failed"]

    assert "planted-secret" not in (project / ".prefect/up.log").read_text()
    told = "from flows.notify import *; candidate_refused('toy@v1', 'worse'); alarm_raised('grpo', "
    told += "{'step': 3, 'message': 'completion_length 9 -> 90', 'kind': 'boxes'})"
    run([sys.executable, "-c", told], project, PREFECT_API_URL=f"http://127.0.0.1:{port}/api")
    failed = start(port, "manual", recipe="recipes/no-such.yaml")
    wait_for(lambda: state(port, failed) == "Failed", 120)
    wait_for(lambda: len(mailbox[1]) >= 3, 60)
    subjects = sorted(one["subject"] for one in mailbox[1])
    assert subjects == ["grpo: signs of reward hacking", "retrain-manual no-such failed", "toy@v1 was refused"]
    (told,) = [one["text"] for one in mailbox[1] if "no-such failed" in one["subject"]]
    assert "no-such.yaml: no such recipe" in told and f"127.0.0.1:{port}/runs/flow-run/{failed}" in told
    wanted = {"flow_run_id": {"any_": [failed]}, "key": {"any_": ["failure"]}}
    (shown,) = ask(port, "artifacts/filter", {"artifacts": wanted})
    assert "no-such.yaml: no such recipe" in shown["data"]
    kept = [p for p in (project / ".prefect").rglob("*") if p.is_file()]
    assert not any(b"planted-secret" in p.read_bytes() for p in kept)


@pytest.mark.slow
def test_a_cancelled_training_leaves_a_checkpoint_and_the_next_run_ends_in_the_same_bytes(up, tmp_path):
    project, port, _ = up
    rows, work = project / ".retrain/work/grpo/metrics.jsonl", project / ".retrain/work/grpo"
    first = start(port, "on-new-data")
    wait_for(lambda: rows.is_file() and len(rows.read_text().splitlines()) >= 5, 600)
    ask(port, f"flow_runs/{first}/set_state", {"state": {"type": "CANCELLING"}})
    wait_for(lambda: state(port, first) == "Cancelled", 90)
    wait_for(lambda: list(work.glob("checkpoint-*/whole.json")), 60)
    second = start(port, "on-new-data")
    wait_for(lambda: state(port, second) in ("Promoted to prod", "Refused"), 1800)
    (record,) = (project / ".retrain/work/records").glob("grpo.json")
    assert json.loads(record.read_text())["continued"]
    plain = make_project(tmp_path / "plain")
    run(["dvc", "repro", "grpo"], plain)
    assert fingerprint_of(project / ".retrain/models/grpo") == fingerprint_of(plain / "models/grpo")


@pytest.mark.slow
def test_after_a_power_cut_runs_are_marked_and_nothing_is_left_over(up):
    project, port, call = up
    pid = read_note(project / ".prefect/up.json")["pid"]
    cut = start(port, "manual", force=True, sets=["grpo.seed=5"])
    wait_for(lambda: state(port, cut) == "Running", 120)
    mark = read_note(project / ".prefect/up.json")["mark"]
    psutil.Process(pid).kill()
    call()
    assert ours(mark) == []
    assert state(port, cut) == "Crashed"
    assert len(ask(port, "deployments/filter", {})) == 3
    keeps = read_note(project / ".prefect/up.json")["pid"]
    (worker,) = workers(keeps)
    cut = start(port, "manual", force=True, sets=["grpo.seed=6"])
    wait_for(lambda: cut in engines(read_note(project / ".prefect/up.json")["mark"]), 120)
    for process in (worker, engines(read_note(project / ".prefect/up.json")["mark"])[cut]):  # as short memory does it
        process.kill()
    wait_for(lambda: state(port, cut) == "Crashed", 120)
    wait_for(lambda: [process for process in workers(keeps) if process.pid != worker.pid], 30)


def workers(keeper_pid):
    """Living workers below a keeper."""
    living = [p for p in psutil.Process(keeper_pid).children() if p.status() != psutil.STATUS_ZOMBIE]
    return [process for process in living if "worker" in process.cmdline()]
