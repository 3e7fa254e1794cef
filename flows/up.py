"""`make up`: server, worker and deployments on this machine, kept running; `make down` ends them and nothing else.

    python -m flows.up [--port 4200] [--device local]    start, or bring the deployments up to date
    python -m flows.up --down                            end what that started: a training leaves a checkpoint first
    python -m flows.up --unit                            print a systemd user unit that starts it at boot

What the server knows is in .prefect (or PREFECT_HOME), so that runs and schedules are there again after a restart.
Runs that were under way when everything went down are marked Crashed; the same run started again goes on from their
checkpoints. The server binds to loopback unless --host says otherwise, and asks nobody who they are.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from flows.supervisor import MARK, PATIENCE, Kept, end_all, keep, keeper, note, ours, read_note, tops
from flows.ui import HOST, answers, server_command, server_settings, taken

COMING = 600.0  # seconds that a start may take
LOOPBACK = (HOST, "localhost", "::1")


def home() -> Path:
    """Where the server's data and our own notes are."""
    return Path(os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect")))


def start(chosen: argparse.Namespace) -> None:
    """Start what is kept, detached from this terminal, and wait until it works. Raises RuntimeError."""
    path = home() / "up.json"
    url = f"http://{chosen.host}:{chosen.port}"
    noted = read_note(path)
    if noted is not None and keeper(noted) is not None:
        print(f"already up at {noted['url']}; bringing the deployments up to date")
        deploy(noted["url"], chosen.device, settle=False, log=None)
        print(f"for Prefect's own commands, in any shell: {in_a_shell(noted['url'])}")
        return
    if noted is not None:
        end_all(ours(noted["mark"]), PATIENCE)  # what one that was killed left behind
    if taken(chosen.host, chosen.port):
        raise RuntimeError(f"port {chosen.port} is taken by something else; give another with --port")
    log = home() / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.up", "--stay", "--host", chosen.host, "--port", str(chosen.port)]
    command += ["--device", chosen.device]
    mark = secrets.token_hex(8)
    begin = log.stat().st_size if log.is_file() else 0
    with log.open("a") as said:
        process = subprocess.Popen(
            command, env=os.environ | {MARK: mark}, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    begun, told = time.monotonic(), ""
    print("coming up: seconds, or up to two minutes at a slow machine's first start", flush=True)
    while (noted := read_note(path)) is None or noted["mark"] != mark or not noted["ready"]:
        passed = time.monotonic() - begun
        if process.poll() is not None or passed > COMING:
            end_all(ours(mark), 20)
            raise RuntimeError(f"it did not come up: {' '.join(log.read_text()[begin:].split())[-600:]}; see {log}")
        if noted is not None and noted["mark"] == mark and noted["doing"] != told:
            told = noted["doing"]
            print(f"{passed:4.0f} s  {told} ...", flush=True)
        time.sleep(0.3)
    print(f"{time.monotonic() - begun:4.0f} s  {noted['said']}")
    print(f"up at {url}; `make down` ends it; {log} has what it says")
    print(f"for Prefect's own commands, in any shell: {in_a_shell(url)}")


def stay(chosen: argparse.Namespace) -> None:
    """Keep server and worker running until SIGTERM; the body of what `start` starts, or a service manager."""
    mark = os.environ.setdefault(MARK, secrets.token_hex(8))
    path, url = home() / "up.json", f"http://{chosen.host}:{chosen.port}"
    stopped: list[int] = []
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda number, _: stopped.append(number))

    def doing(what: str) -> None:
        note(path, mark, os.getpid(), url=url, ready=False, doing=what)

    doing("the server starts; the first time it makes its tables")
    variables = environment(url, chosen.device)
    variables.pop("VLMR1_NOTIFY_URL", None)  # a secret of the server's store: no run needs it
    log = home() / "up.log"
    server = Kept("server", server_command(chosen.host, chosen.port), variables | server_settings(f"{url}/api"), log)
    worker_command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "vlmr1", "--type", "process"]
    worker = Kept("worker", [*worker_command, "--name", chosen.device], variables, log)
    said: list[str] = []

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
            said.append(deploy(url, chosen.device, settle=True, log=log))

    def ready() -> bool:
        if worker.process is not None and "ready" not in done:
            done.add("ready")
            note(path, mark, os.getpid(), url=url, ready=True, said="\n".join(said))
        return bool(stopped)

    done: set[str] = set()
    try:
        keep([server, worker], before, ready)
    finally:
        end_runs(mark, [p.process.pid for p in (server, worker) if p.process is not None])
        worker.end()
        server.end()
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


def deploy(url: str, device: str, settle: bool, log: Path | None) -> str:
    """Bring deployments, limits and notifications up to date, in a process of its own. Raises RuntimeError."""
    command = [sys.executable, "-m", "flows.deploy", *(["--settle"] if settle else [])]
    done = subprocess.run(
        command, env=environment(url, device), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"deployments: {done.stdout.strip()[-800:]}")
    if log is None:
        print(done.stdout.strip())
    return done.stdout.strip()


def in_a_shell(url: str) -> str:
    """What a shell must be told before `prefect` in it means this server and this installation."""
    return f"export PREFECT_API_URL={url}/api PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"


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


def down() -> None:
    """End what `make up` started here."""
    path = home() / "up.json"
    noted = read_note(path)
    if noted is None:
        print("nothing of ours runs here")
        return
    process = keeper(noted)
    if process is not None:
        print("ending; a training finishes its step and leaves a checkpoint ...", flush=True)
        end_all([process], PATIENCE + 60)
    left = ours(noted["mark"])  # where the keeper had been killed
    end_all(left, PATIENCE)
    path.unlink(missing_ok=True)
    print("down" if process is not None or left else "nothing of ours ran any more")


def unit(chosen: argparse.Namespace) -> str:
    """A systemd user unit of this project."""
    stay_on = f"{sys.executable} -m flows.up --stay --host {chosen.host} --port {chosen.port} --device {chosen.device}"
    return f"""# ~/.config/systemd/user/vlmr1.service; then: systemctl --user enable --now vlmr1; loginctl enable-linger
[Unit]
Description=vlmr1: Prefect server and worker

[Service]
WorkingDirectory={Path.cwd()}
Environment=PATH={Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin
Environment=PREFECT_HOME={home()} OMP_NUM_THREADS=1
EnvironmentFile=-{home()}/environment
ExecStart={stay_on}
KillMode=mixed
TimeoutStopSec={PATIENCE + 60:.0f}
Restart=on-failure

[Install]
WantedBy=default.target
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument("--host", default=HOST, help="an address to listen at that others can reach")
    parser.add_argument(
        "--device", default="local", help="what this machine's device is called; one training at a time"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--down", action="store_true")
    what.add_argument("--unit", action="store_true")
    what.add_argument("--stay", action="store_true", help="in the foreground, for a service manager")
    chosen: Any = parser.parse_args()
    if not Path("prefect.yaml").is_file():
        sys.exit("make up: no prefect.yaml here; run it from the project's folder")
    if chosen.host not in LOOPBACK and not chosen.down:
        print(f"listening at {chosen.host}: whoever reaches it can start runs; set PREFECT_SERVER_API_AUTH_STRING")
    try:
        if chosen.down:
            down()
        elif chosen.unit:
            print(unit(chosen), end="")
        elif chosen.stay:
            stay(chosen)
        else:
            start(chosen)
    except (RuntimeError, psutil.Error) as error:
        sys.exit(f"make {'down' if chosen.down else 'up'}: {error}")


if __name__ == "__main__":
    main()
