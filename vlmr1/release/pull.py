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
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from vlmr1.errors import TransientError
from vlmr1.files import inside, sha256
from vlmr1.release.manifest import MANIFEST, MOST_BYTES, check_manifest, stored_as
from vlmr1.release.registry import resolve
from vlmr1.release.store import Store, within

RANGE = 16 << 20  # bytes
SIDE_BY_SIDE = 8
TRIES, PAUSE = 5, 0.5  # of each range, and seconds before the second, twice as many before each further one
SPARE = 64 << 20  # bytes of disk that stay free


def pull(store: Store, wanted: str, target: Path, said: Callable[[str], None]) -> dict[str, Any]:
    """Land NAME@VERSION|@vN|@latest or NAME#LABEL in `target`, a new or empty folder. Returns the manifest.

    Where that very version is there already its bytes are verified, and nothing is fetched. Raises ValueError where the
    name, the store's content or the target is at fault: nothing is kept then. Raises TransientError where the store
    failed; the same pull goes on later.
    """
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
            if (landed := _landed(target)) is not None:  # by another pull, before this one had the lock
                shutil.rmtree(half, ignore_errors=True)
                return _verified(landed, name, version, target, said)
            _fetch_all(store, manifest, half, said)
        except ValueError:
            shutil.rmtree(half, ignore_errors=True)  # another may just be making it again
            raise
        (half / "files" / MANIFEST).write_bytes(text)
        if target.exists():
            target.rmdir()
        (half / "files").rename(target)
        shutil.rmtree(half, ignore_errors=True)
    return manifest


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
        if not path.is_file() or path.stat().st_size != facts["size"] or sha256(path) != facts["sha256"]:
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


def _fetch_all(store: Store, manifest: dict[str, Any], half: Path, said: Callable[[str], None]) -> None:
    """Every file of the manifest, verified, into `half/files`."""
    base = f"{manifest['name']}/{manifest['version']}"
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for number, (key, facts) in enumerate(manifest["files"].items()):
            path = inside(half / "files", key)
            if path.is_file() and path.stat().st_size == facts["size"] and sha256(path) == facts["sha256"]:
                said(f"verified {key} ({facts['size']:,} bytes, here since an earlier try)")
                continue
            part = half / f"{number:05}.part"
            try:
                _fetch(store, f"{base}/{stored_as(key, facts)}", facts["size"], part, pool)
            except FileNotFoundError:
                raise ValueError(f"{base}: {key} is missing from the store") from None
            if part.stat().st_size != facts["size"] or sha256(part) != facts["sha256"]:
                raise ValueError(f"{base}: {key} differs from its manifest; nothing was kept")
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
            said(f"verified {key} ({facts['size']:,} bytes)")


def _fetch(store: Store, key: str, size: int, part: Path, pool: ThreadPoolExecutor) -> None:
    """The ranges of a file that are not there yet, side by side."""
    noted, stop = part.with_suffix(".done"), threading.Event()
    done = set(noted.read_text().split()) if noted.is_file() and part.is_file() else set()
    with part.open("r+b" if done else "wb") as file, noted.open("a" if done else "w") as record:
        file.truncate(size)

        def bring(start: int) -> None:
            _bring(store, key, start, min(start + RANGE, size), size, file.fileno(), stop)
            record.write(f"{start}\n")
            record.flush()

        futures = [pool.submit(bring, start) for start in range(0, size, RANGE) if str(start) not in done]
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()
            for future in futures:
                future.cancel()
            wait(futures)  # before the file is closed


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
        if again + 1 == TRIES or stop.wait(PAUSE * 2**again):
            break
    raise fault
