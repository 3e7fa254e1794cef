"""`make ui`: a Prefect server on this machine, the pipeline as a flow in it, and the server left up to look at.

The server binds to loopback. Ctrl-C stops it, and only it. A server already answering at the port is used as it is.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PATIENCE = 120  # seconds a server may take to answer, its first migrations included


def answers(url: str) -> bool:
    """Whether a Prefect server answers at an API URL."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def taken(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def address(host: str, port: int) -> str:
    """The URL by which this machine reaches a server that listens there: one that listens everywhere, by loopback."""
    there = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)
    return f"http://[{there}]:{port}" if ":" in there else f"http://{there}:{port}"


def server_command(host: str, port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]


def server_settings() -> dict[str, str]:
    """What a server is told by its environment."""
    return {
        "PREFECT_SERVER_UI_API_URL": "/api",  # of the server that the pages came from, by whichever name it was reached
        # In memory they would go with a server that is killed, and what they hold be taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def server(port: int) -> Iterator[str]:
    """A Prefect server's API URL, for as long as the block runs. Raises RuntimeError when it does not come up."""
    url = f"{address(HOST, port)}/api"
    if answers(url):
        yield url
        return
    if taken(HOST, port):
        raise RuntimeError(f"port {port} is taken by something that is no Prefect server; give another with --port")
    variables = os.environ | server_settings()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(server_command(HOST, port), env=variables, stdout=subprocess.DEVNULL, stderr=said)
        try:
            deadline = time.monotonic() + PATIENCE
            while not answers(url):
                if process.poll() is not None:
                    said.seek(0)
                    lines = said.read().strip().splitlines() or ["no word why"]
                    raise RuntimeError(f"the Prefect server ended at its start: {lines[-1]}")
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the Prefect server did not answer at {url} within {PATIENCE} s")
                time.sleep(0.3)
            yield url
        finally:
            _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and make it."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument("--once", action="store_true", help="stop the server when the run has ended")
    chosen = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        sys.exit("make ui: no dvc.yaml here; run it from the project's folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server goes with us
    print(f"starting a Prefect server at {address(HOST, chosen.port)} ...", flush=True)
    try:
        _watch(chosen)
    except RuntimeError as error:
        sys.exit(f"make ui: {error}")
    except KeyboardInterrupt:
        print("\nstopped, and the server with it")


def _watch(chosen: argparse.Namespace) -> None:
    """Run the flow in a server, and leave the server up unless told to stop."""
    with server(chosen.port) as url:
        page = url.removesuffix("/api")
        print(f"watch the run at {page}/runs", flush=True)
        run = subprocess.Popen([sys.executable, "-m", "flows.pipeline"], env=os.environ | {"PREFECT_API_URL": url})
        try:
            code = run.wait()
        finally:
            _end(run)  # stopped before its end, it ends its stages
        if chosen.once:
            sys.exit(code)
        print(
            f"the run has {'failed' if code else 'ended'}; look at it at {page}; Ctrl-C stops the server",
            flush=True,
        )
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
