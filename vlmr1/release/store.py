"""Where releases are kept: a folder, or a bucket of any S3 server. Keys are '/'-separated paths below the store's root.

Left out on purpose: multipart resume, promotion, listing of versions.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from vlmr1.files import inside


class Store(Protocol):
    def exists(self, key: str) -> bool: ...
    def read(self, key: str) -> bytes: ...  # raises FileNotFoundError
    def put(self, path: Path, key: str) -> None: ...  # whole or not at all
    def put_new(self, data: bytes, key: str) -> None: ...  # raises FileExistsError when the key is taken
    def replace(self, data: bytes, key: str) -> None: ...
    def get(self, key: str, path: Path) -> None: ...  # raises FileNotFoundError


def open_store(url: str) -> Store:
    """The store of a URL: a plain path, file:///…, or s3://bucket/prefix. Raises ValueError for anything else."""
    parts = urlparse(url)
    if parts.scheme == "s3":
        return S3Store(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file":
        return FolderStore(Path(parts.path))
    if parts.scheme == "":
        return FolderStore(Path(url))
    raise ValueError(f"store {url!r}: give a folder, file:///… or s3://bucket/prefix")


class FolderStore:
    """Releases below a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def exists(self, key: str) -> bool:
        return inside(self.root, key).is_file()

    def read(self, key: str) -> bytes:
        return inside(self.root, key).read_bytes()

    def put(self, path: Path, key: str) -> None:
        temporary = self._temporary(key)
        shutil.copyfile(path, temporary)
        temporary.replace(inside(self.root, key))

    def put_new(self, data: bytes, key: str) -> None:
        temporary = self._temporary(key)
        temporary.write_bytes(data)
        try:
            os.link(temporary, inside(self.root, key))  # fails, in one step, where the name is taken
        finally:
            temporary.unlink()

    def replace(self, data: bytes, key: str) -> None:
        temporary = self._temporary(key)
        temporary.write_bytes(data)
        temporary.replace(inside(self.root, key))

    def get(self, key: str, path: Path) -> None:
        shutil.copyfile(inside(self.root, key), path)

    def _temporary(self, key: str) -> Path:
        target = inside(self.root, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.tmp")  # one name, so that what a kill left is overwritten


class S3Store:
    """Releases in a bucket. Endpoint, region and credentials come from the usual AWS environment."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3  # here rather than at the top: a folder store should not pay for it

        self.bucket, self.prefix = bucket, prefix
        self.client: Any = boto3.client("s3")

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _call(self, what: str, key: str, **arguments: Any) -> Any:
        """A client call, its 'no such key' told as FileNotFoundError and 'taken' as FileExistsError."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"s3://{self.bucket}/{self._key(key)}"
        try:
            return getattr(self.client, what)(Bucket=self.bucket, Key=self._key(key), **arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("404", "NoSuchKey", "NotFound"):
                raise FileNotFoundError(f"{where}: not found") from None
            if code == "PreconditionFailed":
                raise FileExistsError(f"{where}: taken") from None
            raise ValueError(
                f"{where}: the server said {code}; check the bucket, the endpoint and the credentials"
            ) from None
        except (BotoCoreError, Boto3Error) as error:
            raise ValueError(f"{where}: {type(error).__name__}; check AWS_ENDPOINT_URL and the credentials") from None

    def exists(self, key: str) -> bool:
        try:
            self._call("head_object", key)
        except FileNotFoundError:
            return False
        return True

    def read(self, key: str) -> bytes:
        return self._call("get_object", key)["Body"].read()

    def put(self, path: Path, key: str) -> None:
        self._call("upload_file", key, Filename=str(path))

    def put_new(self, data: bytes, key: str) -> None:
        if self.exists(key):  # some servers ignore the condition
            raise FileExistsError(f"s3://{self.bucket}/{self._key(key)}: taken")
        self._call("put_object", key, Body=data, IfNoneMatch="*")

    def replace(self, data: bytes, key: str) -> None:
        self._call("put_object", key, Body=data)

    def get(self, key: str, path: Path) -> None:
        self._call("download_file", key, Filename=str(path))
