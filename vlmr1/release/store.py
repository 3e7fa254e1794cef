"""Where releases are kept: a folder, or a bucket of any S3 server. Keys are '/'-separated paths below the store's root.

A key that stands for something finished (a manifest, an entry of the log) is written once, by `put_new`, in one step.
The S3 store is in `s3.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

from vlmr1.files import inside, sha256
from vlmr1.settings.results import check_url

BLOCK = 1 << 20  # bytes that are held at once
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")
BEGUN = ".begun.00000000.tmp"  # in a version: written when somebody begins to publish it, swept at the end


class Store(Protocol):
    """What publishing and pulling ask of a store. Raises `TransientError` for what trying again may mend."""

    url: str  # as people are told of it
    side_by_side: int  # requests that are worth making at once

    def size(self, key: str) -> int | None: ...  # bytes; None where there is no such key
    def read(self, key: str, most: int) -> bytes: ...  # raises FileNotFoundError; ValueError above `most` bytes
    def blocks(self, key: str, start: int, stop: int, size: int) -> Iterator[bytes]: ...  # of a key of `size` bytes
    def put(self, path: Path, key: str, digest: str) -> None: ...  # whole or not at all; ValueError for other bytes
    def put_new(self, data: bytes, key: str) -> None: ...  # raises FileExistsError where the key is taken
    def children(self, prefix: str) -> list[str]: ...  # names right below it, sorted
    def remove(self, prefix: str, age: float) -> list[str]: ...  # all below it, where nothing is younger, in seconds
    def sweep(self, prefix: str) -> None: ...  # what interrupted uploads left below it, BEGUN too


def open_store(url: str) -> Store:
    """The store of a URL: a plain path, file:///…, or s3://bucket/prefix. Raises ValueError for anything else."""
    check_url(url)
    parts = urlparse(url)
    if parts.scheme == "s3":
        from vlmr1.release.s3 import S3Store  # here rather than at the top: a folder should not pay for boto3

        return S3Store(parts.netloc, parts.path.strip("/"))
    return FolderStore(Path(unquote(parts.path)) if parts.scheme == "file" else Path(url).expanduser())


class FolderStore:
    """Releases below a local folder."""

    side_by_side = 2  # one is hashed while another is read: disks gain nothing from more

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, str(root)

    def size(self, key: str) -> int | None:
        path = inside(self.root, key)
        return path.stat().st_size if path.is_file() else None

    def read(self, key: str, most: int) -> bytes:
        with inside(self.root, key).open("rb") as file:
            return within(file.read(most + 1), most, key)

    def blocks(self, key: str, start: int, stop: int, size: int) -> Iterator[bytes]:
        path = inside(self.root, key)
        if path.stat().st_size != size:
            raise ValueError(f"{key}: has {path.stat().st_size:,} bytes, {size:,} were promised")
        with path.open("rb") as file:
            file.seek(start)
            while start < stop:
                block = file.read(min(BLOCK, stop - start))
                if not block:
                    raise ValueError(f"{key}: ended at byte {start:,} of {size:,}")
                start += len(block)
                yield block

    def put(self, path: Path, key: str, digest: str) -> None:
        target = inside(self.root, key)
        if target.is_file() and target.stat().st_size == path.stat().st_size and sha256(target) == digest:
            return
        temporary, found = self._temporary(target), hashlib.sha256()
        with path.open("rb") as source, temporary.open("wb") as copy:
            while block := source.read(BLOCK):
                found.update(block)
                copy.write(block)
        if found.hexdigest() != digest:
            temporary.unlink(missing_ok=True)
            raise changed(path)
        to_disk(temporary)
        temporary.replace(target)

    def put_new(self, data: bytes, key: str) -> None:
        target = inside(self.root, key)
        temporary = self._temporary(target)
        try:
            temporary.write_bytes(data)
            to_disk(temporary)
            os.link(temporary, target)  # fails, in one step, where the name is taken
        finally:
            temporary.unlink(missing_ok=True)
        to_disk(target.parent)

    def children(self, prefix: str) -> list[str]:
        folder = inside(self.root, prefix) if prefix else self.root
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if not TEMPORARY.fullmatch(path.name))

    def remove(self, prefix: str, age: float) -> list[str]:
        folder = inside(self.root, prefix)
        found = [path for path in folder.rglob("*") if path.is_file()]
        if any(path.stat().st_mtime > time.time() - age for path in found):
            return []
        shutil.rmtree(folder, ignore_errors=not found)
        return sorted(path.relative_to(folder).as_posix() for path in found)

    def sweep(self, prefix: str) -> None:
        for path in inside(self.root, prefix).rglob(".*.tmp"):
            if TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _temporary(self, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def side_by_side(act: Callable[[str], None], keys: Iterable[str], count: int) -> None:
    """Do something for every key, so many at once; after the first fault nothing is begun any more."""
    pool = ThreadPoolExecutor(count)
    try:
        for one in [pool.submit(act, key) for key in keys]:
            one.result()
    finally:
        pool.shutdown(cancel_futures=True)


def changed(path: Path) -> ValueError:
    """What is said of a file whose bytes are no longer those that were hashed."""
    return ValueError(f"{path}: was changed while it was published; publish again when nothing writes there")


def within(data: bytes, most: int, key: str) -> bytes:
    """The bytes, unless they are more than can be meant."""
    if len(data) > most:
        raise ValueError(f"{key}: is larger than {most:,} bytes, which none of ours is")
    return data


def to_disk(path: Path) -> None:
    """So that what is named after it (a manifest after its files) cannot outlast it in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
