"""What publishing and pulling a checkpoint of 1 GB costs, against a folder and against an S3 server.

    python -m benchmarks.releases --stores releases.tmp s3://bucket/bench --json docs/benchmarks/releases.json

The checkpoint is random bytes in one safetensors-sized file with two small ones beside it. Each action runs in a
process of its own through the public functions, imports included. Seconds are wall seconds, CPU seconds are of that
process alone (a server's are its own), memory is its peak resident set. Beside them stands the plain copy: `cp` for a
folder, boto3's own `upload_file` and `download_file` for a bucket. The server is the one that AWS_ENDPOINT_URL names; a
local one in a minute: `rclone serve s3 FOLDER --auth-key benchkey,benchsecret --addr 127.0.0.1:8333`.
Left out on purpose: a server across a network, which measures the network.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from vlmr1.files import write_json
from vlmr1.provenance import machine

ABOUT = {
    "kind": "model",
    "base": {"kind": "built", "model": None, "revision": None, "sha256": "0" * 64},
    "data": {},
    "params": {},
    "rewards": {"format": 1.0},
    "accuracy": [],
    "scores": {},
}
WHERE = {"commit": None, "dirty": False, "changed": [], "dvc_lock": {}, "packages": {}, "hardware": {}, "parent": None}
NAME = "bench"


def make(folder: Path, size: int) -> None:
    """A checkpoint of random bytes."""
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    (folder / "config.json").write_text("{}")


def publish(url: str, checkpoint: Path, _: Path) -> None:
    from vlmr1.release.publish import publish
    from vlmr1.release.store import open_store

    publish(open_store(url), NAME, checkpoint, ABOUT, WHERE, lambda version: version, {})


def pull(url: str, _: Path, target: Path) -> None:
    from vlmr1.release.pull import pull
    from vlmr1.release.store import open_store

    pull(open_store(url), f"{NAME}@latest", target, lambda line: None)


def copy_up(url: str, checkpoint: Path, _: Path) -> None:
    _client(url)("upload_file", str(checkpoint / "model.safetensors"), "plain/model.safetensors")


def copy_down(url: str, _: Path, target: Path) -> None:
    target.mkdir()
    _client(url)("download_file", "plain/model.safetensors", str(target / "model.safetensors"))


def _client(url: str) -> Callable[[str, str, str], None]:
    """boto3's own way for a bucket, `cp` for a folder."""
    parts = urlparse(url)

    def bucket(what: str, source: str, target: str) -> None:
        import boto3

        key = {"upload_file": target, "download_file": source}[what]
        path = {"upload_file": source, "download_file": target}[what]
        pair = (path, parts.netloc, key) if what == "upload_file" else (parts.netloc, key, path)
        getattr(boto3.client("s3"), what)(*pair)

    def folder(what: str, source: str, target: str) -> None:
        one, other = (Path(source), Path(url) / target) if what == "upload_file" else (Path(url) / source, Path(target))
        other.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--reflink=never", str(one), str(other)], check=True)

    return bucket if parts.scheme == "s3" else folder


ACTIONS = {"publish": publish, "pull": pull, "plain copy up": copy_up, "plain copy down": copy_down}


def measure(action: str, url: str, checkpoint: Path, target: Path) -> dict[str, float]:
    """Run an action in a process of its own: wall seconds, CPU seconds, peak MB."""
    command = [sys.executable, "-m", "benchmarks.releases", "--run", action, url, str(checkpoint), str(target)]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"seconds": round(time.perf_counter() - start, 2), **json.loads(done.stdout)}


def bench(url: str, size: int, folder: Path) -> dict[str, Any]:
    """Every action at a store, each after the page cache was written out."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        make(checkpoint, size)
    found = {}
    for action in ("publish", "plain copy up", "pull", "plain copy down"):
        os.sync()
        found[action] = measure(action, url, checkpoint, folder / "landed")
        shutil.rmtree(folder / "landed", ignore_errors=True)
        print(f"{url}  {action}: {found[action]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", help="folders and s3://bucket/prefix")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        action, url, checkpoint, target = chosen.run
        ACTIONS[action](url, Path(checkpoint), Path(target))
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = round(sum(u.ru_utime + u.ru_stime for u in used), 2)
        print(json.dumps({"cpu_seconds": cpu, "peak_memory_mb": round(max(u.ru_maxrss for u in used) / 1024)}))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = uuid.uuid4().hex[:8]  # nothing of an earlier run is there already
        found = {
            ("s3" if url.startswith("s3:") else "folder"): bench(f"{url}/{run}", chosen.megabytes << 20, Path(folder))
            for url in chosen.stores
        }
    write_json(chosen.json, {"machine": machine(), "megabytes": chosen.megabytes, "stores": found})


if __name__ == "__main__":
    main()
