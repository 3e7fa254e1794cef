"""join: another node follows the pipeline's stages, one after another, wherever several nodes train together.

    vlmr1 join        # on each node but the first, in the project's folder, which all nodes share

`dvc repro` runs on the first node alone, the one that `compute.launch.rendezvous` names. A stage of several nodes
leaves its command in `work/meeting.json` and waits; each joined node starts that command's torchrun as soon as the
first node answers at the rendezvous, and waits for the next stage when it is done. It goes on until it is stopped.
Left out on purpose: remote shells (start it by the cluster's own means), and commands other than stages.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from vlmr1.files import write_json

MEETING = Path("work/meeting.json")
PAUSE = 0.5  # seconds between two looks


def announce(name: str, words: Sequence[str], rendezvous: str) -> None:
    """Tell the other nodes which stage is in hand: the words after the interpreter, and where it waits."""
    write_json(MEETING, {"stage": name, "of": uuid.uuid4().hex, "words": list(words), "rendezvous": rendezvous})
    print(f"{name}: waiting at {rendezvous} for the other nodes; run `vlmr1 join` on each", flush=True)


def join() -> None:
    """Follow stage after stage until stopped; a stage that ends badly here is said, and the next one waited for.

    Raises ValueError outside a project's folder.
    """
    if not Path("params.yaml").is_file():
        raise ValueError("no params.yaml here; run from the project's folder, which all nodes share")
    print("waiting for a stage of several nodes; stop with Ctrl-C", flush=True)
    done = ""
    try:
        while True:
            meeting = json.loads(MEETING.read_text(encoding="utf-8")) if MEETING.is_file() else {"of": done}
            if meeting["of"] == done or not _answers(meeting["rendezvous"]):
                time.sleep(PAUSE)
                continue
            done = meeting["of"]
            print(f"{meeting['stage']}: joined", flush=True)
            code = _run([sys.executable, *meeting["words"]])
            print(f"{meeting['stage']}: {f'ended with {code}' if code else 'done'}", flush=True)
    except KeyboardInterrupt:
        print("left", flush=True)


def _answers(rendezvous: str) -> bool:
    """Whether the first node is there: what was announced by a stage that has ended is not joined."""
    host, _, port = rendezvous.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def _run(command: Sequence[str]) -> int:
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:  # stopped: torchrun takes its processes along
        if process.poll() is None:
            process.terminate()
            process.wait()
