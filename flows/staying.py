"""What `make up` leaves running: a server, a worker and their log, started again when they die, ended together.

python -m flows.up --stay     in the foreground, as a service manager wants it
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from flows.log import without_paths
from flows.supervisor import (
    MARK,
    PATIENCE,
    POOL,
    Kept,
    alone,
    end_all,
    engines,
    keep,
    lives,
    note,
    ours,
    read_note,
    tell,
    tops,
)
from flows.ui import address, answers, server_command, server_settings, taken

COMING = 600.0  # seconds that a start may take


def home() -> Path:
    """Where the server's data and our own notes are."""
    return Path(os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect")))


def stay(chosen: argparse.Namespace) -> None:
    """Keep server and worker running until SIGTERM; the body of what `start` starts, or a service manager.

    Raises RuntimeError where another does it, where the port is taken, and where nothing comes up.
    """
    with alone(home() / "up.lock"):
        path = home() / "up.json"
        left = read_note(path)
        if left is not None and left["mark"] != os.environ[MARK]:
            end_all(ours(left["mark"]), PATIENCE)  # what one that was killed left behind
        if taken(chosen.host, chosen.port):
            raise RuntimeError(f"port {chosen.port} is taken by something else; give another with --port")
        _stay(chosen, path, os.environ[MARK])


def _stay(chosen: argparse.Namespace, path: Path, mark: str) -> None:
    url = address(chosen.host, chosen.port)
    stopped: list[int] = []
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda number, _: stopped.append(number))

    def doing(what: str) -> None:
        note(path, mark, os.getpid(), url=url, ready=False, doing=what)

    doing("the server starts; the first time it makes its tables")
    variables = environment(url, chosen.device)
    variables.pop("VLMR1_NOTIFY_URL", None)  # a secret of the server's store: no run needs it
    source, output = os.pipe()  # both ends stay open here, so whichever of them dies the other goes on
    log_command = [sys.executable, "-m", "flows.log", str(home() / "up.log"), url]
    log = Kept("log", log_command, variables, source=source)
    server = Kept("server", server_command(chosen.host, chosen.port), variables | server_settings(), output)
    worker_command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    worker = Kept("worker", [*worker_command, "--name", chosen.device], variables, output)
    said: list[str] = []
    orphans: dict[str, psutil.Process] = {}  # runs that outlived their worker

    def before(one: Kept) -> None:
        if one is not worker:
            return
        deadline = time.monotonic() + COMING
        while not answers(f"{url}/api") and not stopped:
            server.look()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server did not answer at {url} within {COMING:.0f} s")
            time.sleep(0.3)
        if not stopped:
            doing("the server answers; work pool, limit, deployments and notifications are made")
            said.append(make("flows.deploy", url, chosen.device, "--settle"))

    def again() -> None:
        """Before another worker takes the place of one that died: nobody would tell how that one's runs ended."""
        if not answers(f"{url}/api"):
            raise RuntimeError("the server does not answer")
        tell(make("flows.settle", url, chosen.device))
        orphans.update(engines(mark))

    worker.again = again

    def asked() -> bool:
        if worker.process is not None and "ready" not in done:
            done.add("ready")
            note(path, mark, os.getpid(), url=url, ready=True, said="\n".join(said))
        gone = [run for run, process in orphans.items() if not lives(process)]
        if gone and not stopped and answers(f"{url}/api"):
            try:
                tell(make("flows.settle", url, chosen.device, *gone))
            except RuntimeError as error:  # the server is busy: once more at the next look
                tell(str(error))
            else:
                for run in gone:
                    del orphans[run]
        return bool(stopped)

    done: set[str] = set()
    kept = [log, server, worker]
    try:
        keep(kept, before, asked)
    finally:
        end_runs(mark, [one.process.pid for one in kept if one.process is not None])
        worker.end()
        server.end()
        os.close(output)
        os.close(source)
        log.end()
        path.unlink(missing_ok=True)


def end_runs(mark: str, keeping: list[int]) -> None:
    """End the runs under way: a training finishes its step and leaves a checkpoint."""
    spared = {os.getpid(), *keeping}
    deadline, asked = time.monotonic() + PATIENCE, set[int]()
    while left := [process for process in ours(mark) if process.pid not in spared]:
        if time.monotonic() > deadline:
            end_all(left, 0)
            return
        for process in tops(left):
            if process.pid not in asked:
                asked.add(process.pid)
                process.send_signal(signal.SIGTERM)
        time.sleep(0.5)


def make(module: str, url: str, device: str, *options: str) -> str:
    """What one of our modules says that speaks to the server, in a process of its own. Raises RuntimeError."""
    command = [sys.executable, "-m", module, *options]
    done = subprocess.run(
        command, env=environment(url, device), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = without_paths(done.stdout.strip(), url)
    if done.returncode:
        raise RuntimeError(f"{module}: {said[-800:]}")
    return said


def environment(url: str, device: str) -> dict[str, str]:
    """What server, worker and runs are told."""
    here = str(Path.cwd())
    mine = {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_HOME": str(home()),
        "VLMR1_HOME": here,
        "VLMR1_DEVICE": device,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
        "DO_NOT_TRACK": "1",
    }
    return os.environ | mine
