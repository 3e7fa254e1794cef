"""Faults of a release store: a server that misbehaves, a publisher or a puller that is killed, a disk that is full.

One fault: an attempt to publish or to pull is struck at a moment drawn by the seed, what is visible then is checked,
the attempt is repeated without the fault, and the store's objects and the pulled folder are compared with those of an
attempt that nothing struck. The bucket is a real server's (moto, over HTTP), behind `tests.faulty`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
from moto.server import ThreadedMotoServer

from benchmarks.fault_attempt import NAME
from benchmarks.fault_strike import Strike
from benchmarks.forks import STORE, Forks, Running
from tests.faulty import Faults, faulty
from tests.releases import make_checkpoint
from vlmr1.release.manifest import stored_as
from vlmr1.release.publish import clean
from vlmr1.release.registry import releases
from vlmr1.release.store import Store, open_store
from vlmr1.work import fingerprint_of

SECRET = "planted-secret-of-a-store"
SPOT = re.compile(rb'"at": "[^"]*"')
HOUR = 3600.0


SERVER = (
    "error 500",
    "slow down",
    "hangs",
    "connection lost",
    "answer lost",
    "cut mid-body",
    "truncated",
    "byte flipped",
    "upload truncated",
    "upload flipped",
    "credentials refused",
    "out of space",
)
KINDS = (*SERVER, "killed", "disk full", "clock moved", "two at once")


@dataclass
class Bench:
    """Servers, forks, a checkpoint, and what an attempt that nothing strikes ends in."""

    folder: Path
    forks: Forks
    client: Any
    url: str  # of the front
    faults: Faults
    checkpoint: Path
    whole: dict[str, dict[str, str]] = field(default_factory=dict)  # by kind of store: its content; "pulled"
    requests: dict[str, int] = field(default_factory=dict)  # of each action
    seconds: dict[str, float] = field(default_factory=dict)

    def start(self, action: str, store: str, to: Path, patience: float = 60, **more: Any) -> Running:
        variables = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2",
        }
        folder = self.checkpoint if action == "publish" else to
        words = (action, store, str(folder), str(patience))
        return self.forks.start("benchmarks.fault_attempt", *words, **variables, **more)

    def do(self, action: str, store: str, to: Path) -> None:
        """An attempt that must succeed."""
        running = self.start(action, store, to)
        code = running.wait(300)
        if code != 0:
            raise AssertionError(f"{action} without a fault ended with {code}: {running.text()[-2000:]}")

    def content(self, store: str) -> dict[str, str]:
        """sha256 of everything a store holds, times apart, and its unfinished uploads."""
        if not store.startswith("s3:"):
            return content_of(store)
        bucket = store.split("/")[2]
        listed = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        bodies = {one["Key"]: self.client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}
        uploads = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return {_timeless(key.partition("/")[2]): _digest(body) for key, body in bodies.items()} | {
            f"{upload['Key']} in parts": "unfinished" for upload in uploads
        }

    def direct(self, store: str) -> Store:
        """The store asked without the front."""
        opened: Any = open_store(store)
        if store.startswith("s3:"):
            opened.client = self.client
        return opened


def content_of(folder: str) -> dict[str, str]:
    """sha256 of every file of a store that is a folder, times apart."""
    held = {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {_timeless(key): _digest(body) for key, body in held.items()}


def _timeless(key: str) -> str:
    """A key without the moment that an entry of the log has in its name. Two of one number say the same here."""
    return re.sub(r"(/log/[0-9]{8})-[0-9a-f]{24}", r"\1", key)


def _digest(body: bytes) -> str:
    return hashlib.sha256(SPOT.sub(b"", body)).hexdigest()


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Everything started, and an attempt of each kind made that nothing strikes."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    behind = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    made = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=behind, **made)
    checkpoint = make_checkpoint(folder / "checkpoint", 6 << 20)
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    try:
        with faulty(behind) as (url, faults), Forks(STORE, folder / "said") as forks:
            found = Bench(folder, forks, client, url, faults, checkpoint)
            for store in ("s3", "folder"):
                with place(found, store) as (where, to):
                    for action in ("publish", "pull"):
                        faults.asked.clear()
                        start = time.monotonic()
                        found.do(action, where, to)
                        found.requests[action] = len(faults.asked) or found.requests[action]
                        found.seconds[f"{action} {store}"] = time.monotonic() - start
                    found.whole[store] = found.content(where)
                    found.whole["pulled"] = fingerprint_of(to)
            yield found
    finally:
        server.stop()


@contextmanager
def place(bench: Bench, store: str) -> Iterator[tuple[str, Path]]:
    """(URL of an empty store, folder to pull to), gone afterwards."""
    name = uuid.uuid4().hex
    scratch = bench.folder / name
    scratch.mkdir()
    if store == "s3":
        bench.client.create_bucket(Bucket=name)
    try:
        yield f"s3://{name}/releases" if store == "s3" else str(scratch / "store"), scratch / "landed"
    finally:
        _calm(bench.faults)
        shutil.rmtree(scratch)
        if store == "s3":
            for upload in bench.client.list_multipart_uploads(Bucket=name).get("Uploads", []):
                bench.client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
            for one in bench.client.list_objects_v2(Bucket=name).get("Contents", []):
                bench.client.delete_object(Bucket=name, Key=one["Key"])
            bench.client.delete_bucket(Bucket=name)


def _calm(faults: Faults) -> None:
    fresh = Faults()
    for hook in ("answer", "lose", "send", "change", "cut"):
        setattr(faults, hook, getattr(fresh, hook))


def strike(bench: Bench, kind: str, rng: random.Random) -> list[str]:
    """One fault of that kind; what is not as it should be afterwards, each in a sentence."""
    action = rng.choice(["publish", "publish", "pull"])
    store = "s3" if kind in (*SERVER, "clock moved") or rng.random() < 0.6 else "folder"
    if kind == "disk full" and action == "publish":
        store = "folder"
    wrong: list[str] = []
    with place(bench, store) as (where, to):
        if action == "pull":
            bench.do("publish", where, to)
        DO.get(kind, _struck)(bench, kind, action, where, to, rng, wrong)
        _calm(bench.faults)
        wrong += visible(bench.direct(where))
        if action == "pull" and to.exists() and fingerprint_of(to) != bench.whole["pulled"]:
            wrong.append("a folder was there that is not the release")
        if action == "publish" and rng.random() < 0.3:
            wrong += _cleaned(bench, store, where)
        if not (action == "pull" and to.exists()):
            bench.do(action, where, to)
        wrong += ended(bench, action, store, where, to)
    return wrong


def _struck(bench: Bench, kind: str, action: str, where: str, to: Path, rng: random.Random, wrong: list[str]) -> None:
    """A server that misbehaves from some request on, or an attempt that is killed at one."""
    if kind == "killed" and not where.startswith("s3:"):
        running = bench.start(action, where, to)
        time.sleep(rng.random() * bench.seconds[f"{action} folder"])
        running.kill()
        running.wait()
        return
    first, many = rng.randrange(bench.requests[action]), rng.choice([1, 1, 2, 5, float("inf")])
    strike = Strike(bench.faults, first, many, kind, rng)
    running = strike.running = bench.start(action, where, to, patience=0.3 if kind == "hangs" else 60)
    strike.started.set()
    if running.wait(300) is not None:
        wrong += told(running)


def _full(bench: Bench, kind: str, action: str, where: str, to: Path, rng: random.Random, wrong: list[str]) -> None:
    """Files that may not grow beyond some bytes: writing fails amid them, as on a disk without room."""
    running = bench.start(action, where, to, most=rng.randrange(4096, 6 << 20))
    running.wait(300)
    wrong += told(running)


def _clock(bench: Bench, kind: str, action: str, where: str, to: Path, rng: random.Random, wrong: list[str]) -> None:
    """A clock that is minutes to days wrong; beyond a quarter of an hour the server refuses what it signs."""
    running = bench.start(action, where, to, clock=rng.choice([-1, 1]) * rng.choice([300.0, HOUR, 100 * HOUR]))
    running.wait(300)
    wrong += told(running)


def _two(bench: Bench, kind: str, action: str, where: str, to: Path, rng: random.Random, wrong: list[str]) -> None:
    """The same release published, or pulled to one folder, by two at once; one may be told of the other."""
    both = []
    for _ in range(2):
        both.append(bench.start(action, where, to))
        time.sleep(rng.random() * 0.2)
    codes = [running.wait(300) for running in both]
    wrong += [word for running in both for word in told(running)]
    if 0 not in codes:
        wrong.append(f"of two at once the codes were {codes}: {both[0].text()[-300:]} {both[1].text()[-300:]}")


DO: dict[str, Callable[..., None]] = {"disk full": _full, "clock moved": _clock, "two at once": _two}


def told(running: Running) -> list[str]:
    """What an attempt said that is no sentence of ours, or a secret."""
    text = running.text()
    wrong = [f"a traceback: {text[-1500:]}"] if "Traceback" in text else []
    return wrong + (["a secret was said"] if SECRET in text else [])


def visible(store: Store) -> list[str]:
    """What a store shows that is not whole."""
    wrong = []
    for release in releases(store, NAME):
        for key, facts in release.manifest["files"].items():
            at = f"{NAME}/{release.version}/{stored_as(key, facts)}"
            size = store.size(at)
            body = b"" if size is None else b"".join(store.blocks(at, 0, size, size)) if size else b""
            if size is None or hashlib.sha256(body).hexdigest() != facts["sha256"]:
                wrong.append(f"{release.version} is visible, and {key} is not what its manifest says")
    return wrong


def _cleaned(bench: Bench, store: str, where: str) -> list[str]:
    """`vlmr1 releases clean` leaves what is young alone, and removes nothing but what the release would have sent."""
    direct = bench.direct(where)
    if direct.children(NAME) and clean(direct, NAME):
        return ["cleaning took what is young"]
    removed = {f"{NAME}/{v}/{key}" for v, keys in clean(direct, NAME, age=-HOUR).items() for key in keys}
    strange = {key for key in removed - bench.whole[store].keys() if not key.endswith(".tmp")}
    return [f"cleaning took {sorted(strange)}"] if strange else []


def ended(bench: Bench, action: str, store: str, where: str, to: Path) -> list[str]:
    """How the end differs from that of an attempt which nothing struck."""
    wrong = []
    there, whole = bench.content(where), bench.whole[store]
    if there != whole:
        differ = sorted(key for key in there.keys() | whole.keys() if there.get(key) != whole.get(key))
        wrong.append(f"the store differs in {differ}")
    if action == "publish":
        bench.do("pull", where, to)
    if fingerprint_of(to) != bench.whole["pulled"]:
        wrong.append("what was pulled differs")
    left = [path.name for path in to.parent.iterdir() if path.name not in (to.name, "store")]
    wrong += [f"left beside it: {left}"] if left else []
    if bench.direct(where).children(NAME) and clean(bench.direct(where), NAME, age=-HOUR):
        wrong.append("something unfinished was left in the store")
    own = [p for p in psutil.Process(bench.forks.parent.pid).children() if p.status() != psutil.STATUS_ZOMBIE]
    return wrong + ([f"{len(own)} processes are left"] if own else [])
