"""Releases in a bucket of any S3 server. Endpoint, region and credentials come from the usual AWS environment.

A large file goes up in parts, side by side, and what a server already holds of it is not sent again. Servers that
know no conditional writes are met by looking before writing and reading back after it.
Left out on purpose: making buckets, access rules, encryption keys: the server's owner sets these.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from vlmr1.errors import TransientError
from vlmr1.release.store import BEGUN, BLOCK, changed, within

MOST_BYTES = 64 << 20  # of what is written by `put_new`: manifests and entries of the log
PART = 16 << 20  # bytes; larger where a file has more than MOST_PARTS of them
MOST_PARTS = 10_000
SIDE_BY_SIDE = 4  # parts of one file, which are held in memory
READ = 60  # seconds to wait for the next bytes of a reply
TRIES = 6  # of each request, with back-off; AWS_MAX_ATTEMPTS says otherwise
READS = 3  # of a small key whose reply was cut off
_GONE = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_TAKEN = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_LATER = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "Throttling", "TooManyRequests"}
_LATER |= {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}  # bytes were lost or changed on the way


class CutOffError(TransientError):
    """A reply ended before its end."""


class S3Store:
    """Releases below a prefix of a bucket."""

    side_by_side = 8

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix, self.url = bucket, prefix, f"s3://{bucket}/{prefix}".rstrip("/")
        retries: Any = {"mode": "standard"}
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            retries["total_max_attempts"] = TRIES
        settings = Config(retries=retries, connect_timeout=10, read_timeout=READ, max_pool_connections=16)
        try:
            self.client: Any = boto3.client("s3", config=settings)
        except (BotoCoreError, ValueError) as error:
            raise ValueError(f"{self.url}: {type(error).__name__}; check AWS_ENDPOINT_URL and the region") from None

    def size(self, key: str) -> int | None:
        head = self._head(key)
        return None if head is None else int(head["ContentLength"])

    def read(self, key: str, most: int, tries: int = READS) -> bytes:
        try:
            return within(b"".join(self._body(self._call("get_object", key)["Body"], key, most + 1)), most, key)
        except CutOffError:
            if tries == 1:
                raise
            return self.read(key, most, tries - 1)

    def blocks(self, key: str, start: int, stop: int, size: int) -> Iterator[bytes]:
        reply = self._call("get_object", key, Range=f"bytes={start}-{stop - 1}")
        if reply.get("ContentRange") != f"bytes {start}-{stop - 1}/{size}":
            raise ValueError(
                f"{key}: the server sent {reply.get('ContentRange', 'all of it')}, {size:,} bytes were promised"
            )
        yield from self._body(reply["Body"], key, stop - start)

    def put(self, path: Path, key: str, digest: str) -> None:
        size, head = path.stat().st_size, self._head(key)
        if head is not None and head["ContentLength"] == size and digest == self._digest(key, head):
            return
        if size <= PART:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise changed(path)
            self._call("put_object", key, Body=data, Metadata={"sha256": digest}, ChecksumSHA256=_checksum(data))
        else:
            self._put_in_parts(path, key, digest, size)
        if self.size(key) != size:
            raise TransientError(f"{self._where(key)}: the server holds another size than was sent")

    def put_new(self, data: bytes, key: str) -> None:
        if self._head(key) is not None:  # some servers ignore the condition
            raise FileExistsError(f"{self._where(key)}: taken")
        with suppress(FileExistsError):  # it may be ours: the answer to a first try was lost
            self._call("put_object", key, Body=data, IfNoneMatch="*")
        if self.read(key, MOST_BYTES) != data:  # another's came at the same moment, and was kept
            raise FileExistsError(f"{self._where(key)}: taken")

    def children(self, prefix: str) -> list[str]:
        base = self._key(f"{prefix}/" if prefix else "")
        found: set[str] = set()
        for page in self._pages("list_objects_v2", Prefix=base, Delimiter="/"):
            found |= {entry["Prefix"][len(base) : -1] for entry in page.get("CommonPrefixes", [])}
            found |= {entry["Key"][len(base) :] for entry in page.get("Contents", [])}
        return sorted(found - {""})

    def remove(self, prefix: str, age: float) -> list[str]:
        base = self._key(f"{prefix}/")
        pages = self._pages("list_objects_v2", Prefix=base)
        found = {entry["Key"]: entry["LastModified"] for page in pages for entry in page.get("Contents", [])}
        uploads = self._uploads(base)
        parts = [p for one in uploads for p in self._parts(one["Key"][len(self._key("")) :], one["UploadId"])]
        times = [*found.values(), *(one["Initiated"] for one in uploads), *(part["LastModified"] for part in parts)]
        if any(at > datetime.now(UTC) - timedelta(seconds=age) for at in times):
            return []
        self.sweep(prefix)
        for key in found:
            self._call("delete_object", key[len(self._key("")) :])
        return sorted({*(key[len(base) :] for key in found), *(upload["Key"][len(base) :] for upload in uploads)})

    def sweep(self, prefix: str) -> None:
        if self._head(f"{prefix}/{BEGUN}") is not None:
            self._call("delete_object", f"{prefix}/{BEGUN}")
        for upload in self._uploads(self._key(f"{prefix}/")):
            self._call("abort_multipart_upload", upload["Key"][len(self._key("")) :], UploadId=upload["UploadId"])

    def _put_in_parts(self, path: Path, key: str, digest: str, size: int) -> None:
        """Send what the server does not hold yet. A part it holds is kept where its sha256 or md5 is the file's own.

        The very bytes that are sent are hashed, SIDE_BY_SIDE parts in memory.
        """
        step, found, parts = max(PART, -(-size // MOST_PARTS)), hashlib.sha256(), list[dict[str, Any]]()
        number, held = self._begun(key, digest)

        def send(index: int, data: bytes) -> dict[str, Any]:
            part, check = held.get(index, {}), _checksum(data)
            if check != part.get("ChecksumSHA256") and _md5(data) != part.get("ETag", "").strip('"'):
                given = {"UploadId": number, "PartNumber": index, "ChecksumSHA256": check}
                part = self._call("upload_part", key, Body=data, **given)
            known = {name: part[name] for name in ("ETag", "ChecksumSHA256") if name in part}
            return known | {"PartNumber": index}

        pool, sent = ThreadPoolExecutor(SIDE_BY_SIDE), deque[Future[dict[str, Any]]]()
        try:
            with path.open("rb") as file:
                while data := file.read(step):
                    found.update(data)
                    sent.append(pool.submit(send, len(parts) + len(sent) + 1, data))
                    if len(sent) == SIDE_BY_SIDE:
                        parts.append(sent.popleft().result())
            parts += [one.result() for one in sent]
        finally:
            pool.shutdown(cancel_futures=True)
        if found.hexdigest() != digest:
            self._call("abort_multipart_upload", key, UploadId=number)
            raise changed(path)
        self._call("complete_multipart_upload", key, UploadId=number, MultipartUpload={"Parts": parts})

    def _begun(self, key: str, digest: str) -> tuple[str, dict[int, dict[str, Any]]]:
        """The upload in parts of a key, and what the server holds of it; a new one where none can be gone on with."""
        with suppress(ValueError):  # who may not list uploads sends all again
            begun = [upload for upload in self._uploads(self._key(key)) if upload["Key"] == self._key(key)]
            if begun:
                number = str(max(begun, key=lambda upload: upload["Initiated"])["UploadId"])
                return number, {part["PartNumber"]: part for part in self._parts(key, number)}
        made = self._call("create_multipart_upload", key, Metadata={"sha256": digest}, ChecksumAlgorithm="SHA256")
        return str(made["UploadId"]), {}

    def _digest(self, key: str, head: dict[str, Any]) -> str:
        """sha256 of a key's bytes: as we noted it, or where the server keeps no notes by reading them."""
        noted = {name.lower(): value for name, value in head.get("Metadata", {}).items()}  # servers differ
        if "sha256" in noted:
            return str(noted["sha256"])
        found = hashlib.sha256()
        for block in self._body(self._call("get_object", key)["Body"], key, head["ContentLength"]):
            found.update(block)
        return found.hexdigest()

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return self._call("head_object", key)
        except FileNotFoundError:
            return None

    def _uploads(self, prefix: str) -> list[dict[str, Any]]:
        """Uploads in parts that were begun and not ended. None where a server cannot tell, or says so by an error."""
        try:
            pages = list(self._pages("list_multipart_uploads", Prefix=prefix))
        except (NotImplementedError, FileNotFoundError):
            return []
        return [upload for page in pages for upload in page.get("Uploads", []) if upload["Key"].startswith(prefix)]

    def _parts(self, key: str, number: str) -> list[dict[str, Any]]:
        pages = self._pages("list_parts", Key=self._key(key), UploadId=number)
        return [part for page in pages for part in page.get("Parts", [])]

    def _pages(self, what: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from self.client.get_paginator(what).paginate(Bucket=self.bucket, **arguments)
        except (ClientError, BotoCoreError) as error:
            raise _told(error, self.url) from None

    def _call(self, what: str, key: str, **arguments: Any) -> dict[str, Any]:
        try:
            return getattr(self.client, what)(Bucket=self.bucket, Key=self._key(key), **arguments)
        except (ClientError, BotoCoreError) as error:
            raise _told(error, self._where(key)) from None

    def _body(self, body: Any, key: str, most: int) -> Iterator[bytes]:
        """At most so many bytes of a reply, block by block. Raises TransientError where they are cut off."""
        try:
            while most and (block := body.read(min(BLOCK, most))):
                most -= len(block)
                yield block
        except (BotoCoreError, OSError) as error:
            raise CutOffError(f"{self._where(key)}: cut off ({type(error).__name__})") from None
        finally:
            body.close()

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _where(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._key(key)}"


def _told(error: Exception, where: str) -> Exception:
    """A fault of boto3 in a sentence of ours, which holds no address, header or credential."""
    if isinstance(error, ConnectionError | HTTPClientError):
        return TransientError(f"{where}: {type(error).__name__}; check AWS_ENDPOINT_URL and the network, or try again")
    if not isinstance(error, ClientError):
        return ValueError(f"{where}: {type(error).__name__}; check the credentials, the region and AWS_ENDPOINT_URL")
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return ValueError(f"{where}: no such bucket; make it, or mend the store's URL")
    if code in _GONE:
        return FileNotFoundError(f"{where}: not found")
    if code in _TAKEN:
        return FileExistsError(f"{where}: taken")
    if code == "NotImplemented":
        return NotImplementedError(f"{where}: the server cannot do that")
    if code in _LATER or status == 429 or status >= 500:
        return TransientError(f"{where}: the server said {code}; try again later")
    return ValueError(f"{where}: the server said {code}; check the bucket, the endpoint and the credentials")


def _checksum(data: bytes) -> str:
    """sha256 as S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
