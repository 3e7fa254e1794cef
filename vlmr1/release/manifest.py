"""The manifest: what a release holds, file by file, what it is (`about`), and where it came from (`where`).

The version names the model's files with what `about` says of them, and nothing else: no time, commit or machine. The
same run is the same version. Its schema for other programs is `manifest.schema.json` beside this file, made of the
models below; `python -m vlmr1.release.manifest` writes it again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from vlmr1.files import sha256, write_json
from vlmr1.release.names import MOST_FILES, check_names
from vlmr1.release.showing import clean_text
from vlmr1.settings.base import Block
from vlmr1.settings.releases import ReleaseName, Version

FORMAT = 2
MANIFEST, CARD, PICTURES = "manifest.json", "README.md", "pictures/"
MOST_BYTES = 16 << 20  # of a manifest: what 10,000 files and a page of scores take, tenfold
MOST = 1e12  # of a figure, either way
SCHEMA = Path(__file__).with_name("manifest.schema.json")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]  # as DVC names content
Text = Annotated[str, Field(max_length=1000)]


class File(Block):
    sha256: Digest
    size: Annotated[int, Field(ge=0, lt=1 << 50)]  # bytes


class Base(Block):
    """What was trained: `model` is a hub's name, a folder's, or NAME of a release."""

    kind: Literal["built", "hub", "folder", "release"]  # built: from nothing, and warmed up
    model: Text | None
    revision: Text | None  # of hub: the commit; of folder: the digest; of release: the version
    sha256: Digest  # over names and hashes of the base's own files


class Score(Block):
    """Figures of one source: what it is judged by, with its 95 % interval in `…_low` and `…_high`, and any others."""

    model_config = ConfigDict(extra="allow")

    task: Text
    judged: Text
    n: Annotated[int, Field(ge=1, lt=1 << 50)]

    @model_validator(mode="after")
    def _interval(self) -> Score:
        figures = self.model_extra or {}
        for end in ("", "_low", "_high"):
            figure = figures.get(f"{self.judged}{end}")
            if isinstance(figure, bool) or not isinstance(figure, int | float) or not -MOST <= figure <= MOST:
                raise ValueError("the judged figure or an end of its interval is missing")
        return self


class About(Block):
    """What the version names beside the model's files."""

    kind: Literal["model", "adapter"]
    base: Base
    data: dict[str, Digest]  # converted folders, each one sha256 over names and hashes of its files
    params: dict[str, Any]  # all that shaped the result
    rewards: dict[str, float]  # names and weights
    accuracy: list[Text]  # which rewards `accuracy` stood for
    scores: dict[str, Score]  # by evaluation source


class Where(Block):
    """Where it was made. Not part of the version."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")] | None
    dirty: bool
    changed: list[Text]  # files that differed from the commit
    dvc_lock: dict[str, dict[str, Md5]]  # by stage and path, what it read and what it made
    packages: dict[str, Text]
    hardware: dict[str, Any]
    parent: Version | None  # what the gate's label named then


class Manifest(Block):
    format: Literal[2]
    name: ReleaseName
    version: Version
    files: Annotated[dict[str, File], Field(min_length=1, max_length=MOST_FILES)]
    about: About
    where: Where


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """{relative path: {sha256, size}} of every file below a folder, sorted."""
    return {path.relative_to(folder).as_posix(): describe(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def describe(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"sha256": sha256(path), "size": path.stat().st_size}


def stored_as(name: str, facts: dict[str, Any]) -> str:
    """Where a file lies below NAME/VERSION. A model's files by their names: the version says what is in them.

    The card and its pictures differ by commit and machine, so they lie below their own hash: of two who publish one
    version at a time, neither can change what the other's manifest tells of.
    """
    beside = name == CARD or name.startswith(PICTURES)
    return f"{facts['sha256'][:16]}/{name}" if beside else name


def version_of(files: dict[str, dict[str, Any]], about: dict[str, Any]) -> str:
    """Thirty-two hex digits that name the model's files, the card and its pictures aside, with what `about` says."""
    model = {name: facts for name, facts in files.items() if name != CARD and not name.startswith(PICTURES)}
    text = json.dumps({"files": model, "about": about}, sort_keys=True, allow_nan=False)  # which is no JSON
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_manifest(text: bytes | str, name: str, version: str) -> dict[str, Any]:
    """Parse the manifest of NAME@VERSION. Raises ValueError where it is none, is another's, or has a name out of place.

    The version must be that of what the manifest says, so who asks for a version gets its content or nothing.
    """
    try:
        Manifest.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = clean_text(".".join(map(str, fault["loc"]))[:200])
        raise ValueError(f"{name}@{version}: not a release manifest of this format: {where}: {fault['msg']}") from None
    manifest: dict[str, Any] = json.loads(text)
    try:
        digest = version_of(manifest["files"], manifest["about"])
        check_names(manifest["files"], MANIFEST)
    except ValueError as error:
        raise ValueError(f"{name}@{version}: {error}") from None
    if (manifest["name"], manifest["version"]) != (name, version):
        raise ValueError(f"the manifest at {name}/{version} is of {manifest['name']}@{manifest['version']}")
    if digest != version:
        raise ValueError(f"{name}@{version}: the manifest was changed: its version names other content")
    return manifest


def schema() -> dict[str, Any]:
    """The JSON schema of a manifest, draft 2020-12."""
    names = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:vlmr1:release-manifest:{FORMAT}"}
    return {**names, **Manifest.model_json_schema()}


if __name__ == "__main__":
    write_json(SCHEMA, schema())
