"""Getting a release out of a store: in ranges side by side, every byte verified before the folder appears.

What was fetched when a pull was stopped lies beside the target in `.TARGET.VERSION.tmp`, and the same pull goes on from
there: `NUMBER.part` holds a file, `NUMBER.done` a line for each range of it that was written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from vlmr1.errors import TransientError
from vlmr1.files import inside, sha256
from vlmr1.release.manifest import MANIFEST, MOST_BYTES, check_manifest, stored_as
from vlmr1.release.registry import resolve
from vlmr1.release.store import Store, to_disk, within

RANGE = 16 << 20  # bytes
TRIES, PAUSE = 5, 0.5  # of each range, and seconds before the second, twice as many before each further one
SPARE = 64 << 20  # bytes of disk that stay free


def pull(store: Store, wanted: str, target: Path, said: Callable[[str], None]) -> dict[str, Any]:
    """Land NAME@VERSION|@vN|@latest or NAME#LABEL in `target`, a new or empty folder. Returns the manifest.

    Where that very version is there already its bytes are verified, and nothing is fetched. Raises ValueError where the
    name, the store's content or the target is at fault, TransientError where the store failed. What was verified before
    that stays beside the target, and the same pull goes on from there.
    """
    if target.name in ("", ".."):
        raise ValueError(f"{target}: already a folder; name the one that is to appear")
    landed = _landed(target)
    name, version = resolve(store, wanted)
    if landed is not None:
        return _verified(landed, name, version, target, said)
    try:
        text = store.read(f"{name}/{version}/{MANIFEST}", MOST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"no release {wanted} in {store.url}") from None
    manifest = check_manifest(text, name, version)
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.{version}.tmp")
    if half.is_symlink() or any(path.is_symlink() for path in half.rglob("*")):
        raise ValueError(f"{half}: is a link, or holds one, which no pull makes; remove it")
    _room(manifest, half)
    with _alone(half):
        try:
            if (landed := _landed(target)) is None:
                _fetch_all(store, manifest, half, said)
                _let_appear(half, text, target)
            else:  # by another pull, before this one had the lock
                _verified(landed, name, version, target, said)
        except ValueError:
            if not any(path.is_file() for path in (half / "files").rglob("*")):
                shutil.rmtree(half, ignore_errors=True)  # another may just be making it again
            raise
        shutil.rmtree(half, ignore_errors=True)
    return manifest


def _let_appear(half: Path, text: bytes, target: Path) -> None:
    """The folder with its manifest, in one step, and so that a power cut leaves it whole or not there."""
    (half / "files" / MANIFEST).write_bytes(text)
    for path in (half / "files" / MANIFEST, *(p for p in (half / "files").rglob("*") if p.is_dir()), half / "files"):
        to_disk(path)
    if target.exists():
        target.rmdir()
    (half / "files").rename(target)
    to_disk(target.parent)


def _landed(target: Path) -> dict[str, Any] | None:
    """The manifest of the release that a folder holds, None for a new or empty one. Raises ValueError for any other."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ValueError(f"{target} already holds something; give a new folder")
    if not target.is_dir() or not any(target.iterdir()):
        return None
    try:
        with inside(target, MANIFEST).open("rb") as file:
            text = within(file.read(MOST_BYTES + 1), MOST_BYTES, MANIFEST)
        said = json.loads(text)
        return check_manifest(text, said["name"], said["version"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{target} already holds something, and no release; give a new folder") from None


def _verified(
    manifest: dict[str, Any], name: str, version: str, target: Path, said: Callable[[str], None]
) -> dict[str, Any]:
    """The manifest of what landed before. Raises ValueError where it is another release, or not every byte of it."""
    there = f"{manifest['name']}@{manifest['version']}"
    if there != f"{name}@{version}":
        raise ValueError(
            f"{target} holds {there}; {name}@{version} goes to a folder of its own, or remove that one first"
        )
    for key, facts in manifest["files"].items():
        path = inside(target, key)
        if not _right(path, facts["size"], facts["sha256"]):
            fault = "was changed" if path.exists() else "is gone"
            raise ValueError(
                f"{target} holds {there}, but {key} {fault}; remove {target} and pull again, or give a new folder"
            )
    said(f"nothing to fetch: {target} holds {there}, every byte as its manifest says")
    return manifest


@contextlib.contextmanager
def _alone(half: Path) -> Iterator[None]:
    """Make the folder, and refuse to write where another pull does; one that is just ending takes it away again."""
    with contextlib.ExitStack() as stack:
        try:
            (half / "files").mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((half / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            raise ValueError(f"{half}: another pull is writing there; wait for it, or name another folder") from None
        yield


def _room(manifest: dict[str, Any], half: Path) -> None:
    """Refuse what the disk cannot hold, before a byte of it is fetched."""
    there = sum(path.stat().st_blocks * 512 for path in half.rglob("*") if path.is_file())
    total, free = sum(facts["size"] for facts in manifest["files"].values()), shutil.disk_usage(half.parent).free
    if total > there + free - SPARE:
        raise ValueError(f"{half.parent}: {free / 1e9:,.1f} GB are free, and {total / 1e9:,.1f} GB are to land there")


class _File:
    """A file on its way: `NUMBER.part` beside the folder, until every range of it is there and its bytes are right."""

    def __init__(self, key: str, facts: dict[str, Any], at: str, half: Path, number: int) -> None:
        self.key, self.at, self.size, self.sha256 = key, at, int(facts["size"]), facts["sha256"]
        self.path, self.part = inside(half / "files", key), half / f"{number:05}.part"
        self.noted = self.part.with_suffix(".done")
        self.turn = threading.Lock()

    def begin(self, afresh: bool = False) -> list[int]:
        """Make room for it; the starts of the ranges that are to come, of an empty file the one of none."""
        if afresh:
            self.noted.unlink(missing_ok=True)
        done = set(self.noted.read_text().split()) if self.noted.is_file() and self.part.is_file() else set()
        with self.part.open("r+b" if done else "wb") as file:
            file.truncate(self.size)
        self.noted.touch()
        self.missing = [start for start in range(0, self.size, RANGE) if str(start) not in done]
        return list(self.missing)

    def bring(self, store: Store, start: int, stop: threading.Event) -> bool:
        """One range; True for the one that came last."""
        file = os.open(self.part, os.O_WRONLY)
        try:
            _bring(store, self.at, start, min(start + RANGE, self.size), self.size, file, stop)
        finally:
            os.close(file)
        with self.turn:
            with self.noted.open("a") as record:
                record.write(f"{start}\n")
            self.missing.remove(start)
            return not self.missing

    def land(self) -> bool:
        """Let it appear in the folder; False where its bytes are not what the manifest says."""
        if not _right(self.part, self.size, self.sha256):
            return False
        to_disk(self.part)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.part.replace(self.path)
        self.noted.unlink()
        return True


def _right(path: Path, size: int, digest: str) -> bool:
    return path.is_file() and path.stat().st_size == size and sha256(path) == digest


def _fetch_all(store: Store, manifest: dict[str, Any], half: Path, said: Callable[[str], None]) -> None:
    """Every file of the manifest, verified, into `half/files`: ranges of all files in one row, verified as they end."""
    base = f"{manifest['name']}/{manifest['version']}"
    turn = threading.Lock()
    stop, pool, futures = threading.Event(), ThreadPoolExecutor(store.side_by_side), list[Future[None]]()

    def end(file: _File) -> None:
        if not file.land():  # bytes were changed on the way, or are wrong there
            for start in file.begin(afresh=True):
                file.bring(store, start, stop)
            if not file.land():
                raise ValueError(f"{base}: {file.key} differs from its manifest, fetched twice")
        with turn:  # a line at a time
            said(f"verified {file.key} ({file.size:,} bytes)")

    def bring(file: _File, start: int) -> None:
        if file.bring(store, start, stop):
            end(file)

    try:
        for number, (key, facts) in enumerate(manifest["files"].items()):
            file = _File(key, facts, f"{base}/{stored_as(key, facts)}", half, number)
            if _right(file.path, file.size, file.sha256):
                with turn:
                    said(f"verified {key} ({file.size:,} bytes, here since an earlier try)")
                continue
            starts = file.begin()
            futures += [pool.submit(bring, file, start) for start in starts] or [pool.submit(end, file)]
        ended = wait(futures, return_when=FIRST_EXCEPTION).done
        faults = [fault for one in ended if (fault := one.exception()) is not None]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    for fault in sorted(faults, key=lambda fault: isinstance(fault, TransientError)):  # what a person must mend first
        raise fault


def _bring(store: Store, key: str, start: int, end: int, size: int, file: int, stop: threading.Event) -> None:
    """One range, taken up again where it was cut off. Raises TransientError after the last try."""
    for again in range(TRIES):
        try:
            for block in store.blocks(key, start, end, size):
                if len(block) > end - start:
                    raise ValueError(f"{key}: more bytes came than were asked for")
                start += os.pwrite(file, block, start)
                if stop.is_set():
                    break
            if start == end:
                return
            fault = TransientError(f"{key}: cut off at byte {start:,} of {size:,}")
        except TransientError as error:
            fault = error
        except FileNotFoundError:
            raise ValueError(f"{key}: is missing from the store") from None
        if again + 1 == TRIES or stop.wait(PAUSE * 2**again):
            break
    raise fault
