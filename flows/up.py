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
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from flows.log import open_log
from flows.staying import COMING, home, make, stay
from flows.supervisor import KEEPER, MARK, PATIENCE, end_all, keeper, ours, read_note
from flows.ui import HOST, address

LOOPBACK = (HOST, "localhost", "::1")


def start(chosen: argparse.Namespace) -> None:
    """Start what is kept, detached from this terminal, and wait until it works. Raises RuntimeError."""
    path = home() / "up.json"
    url = address(chosen.host, chosen.port)
    noted = read_note(path)
    if noted is not None and keeper(noted) is not None:
        if not noted["ready"]:
            raise RuntimeError("another `make up` is bringing it up just now; wait for its end")
        print(f"already up at {noted['url']}; bringing the deployments up to date")
        print(make("flows.deploy", noted["url"], chosen.device))
        print(f"for Prefect's own commands, in any shell: {in_a_shell(noted['url'])}")
        return
    log = home() / "up.log"
    command = [sys.executable, "-m", KEEPER, "--stay", "--host", chosen.host, "--port", str(chosen.port)]
    command += ["--device", chosen.device]
    mark = secrets.token_hex(8)
    with open_log(log) as said:
        begin = log.stat().st_size
        process = subprocess.Popen(
            command, env=os.environ | {MARK: mark}, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    begun, told = time.monotonic(), ""
    print("coming up: seconds, or up to two minutes at a slow machine's first start", flush=True)
    while (noted := read_note(path)) is None or noted["mark"] != mark or not noted["ready"]:
        passed = time.monotonic() - begun
        if process.poll() is not None or passed > COMING:
            end_all(ours(mark), 20)
            words = log.read_bytes()[begin:].decode("utf-8", errors="replace").split()
            raise RuntimeError(f"it did not come up: {' '.join(words)[-600:]}; see {log}")
        if noted is not None and noted["mark"] == mark and noted["doing"] != told:
            told = noted["doing"]
            print(f"{passed:4.0f} s  {told} ...", flush=True)
        time.sleep(0.3)
    print(f"{time.monotonic() - begun:4.0f} s  {noted['said']}")
    print(f"up at {url}; `make down` ends it; {log} has what it says")
    print(f"for Prefect's own commands, in any shell: {in_a_shell(url)}")


def in_a_shell(url: str) -> str:
    """What a shell must be told before `prefect` in it means this server and this installation."""
    return f"export PREFECT_API_URL={url}/api PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"


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
    if (read_note(path) or noted)["mark"] == noted["mark"]:  # not one that has come up meanwhile
        path.unlink(missing_ok=True)
    print("down" if process is not None or left else "nothing of ours ran any more")


def unit(chosen: argparse.Namespace) -> str:
    """A systemd user unit of this project."""
    stay_on = f"{sys.executable} -m {KEEPER} --stay --host {chosen.host} --port {chosen.port} --device {chosen.device}"
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
    if (
        chosen.stay and MARK not in os.environ
    ):  # as a service manager starts it: the mark is known by what we began with
        os.execve(sys.executable, sys.orig_argv, os.environ | {MARK: secrets.token_hex(8)})
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
