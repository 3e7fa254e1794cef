"""publish: GRPO's checkpoint to the release store, with its card and manifest. Run: `python -m vlmr1.stages.publish`.

An adapter is published by itself, its base pinned, unless `publish.merge` asks for the whole checkpoint. The receipt
(reports/published.json) names the version, which follows from what was released.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmr1.files import sha256, whole_folder, write_json
from vlmr1.provenance import commit, folder_digest, locked, machine, package_versions
from vlmr1.release.adapter import ADAPTER, pinned
from vlmr1.release.card import model_card
from vlmr1.release.folders import hide
from vlmr1.release.manifest import MANIFEST, PICTURES
from vlmr1.release.publish import publish
from vlmr1.release.registry import promoted
from vlmr1.release.store import open_store
from vlmr1.report import page
from vlmr1.sample import load_sources
from vlmr1.settings import Params, read_yaml
from vlmr1.stages import BASE, CONVERTED, RECORDS, read_json, run_stage

POLICY = "grpo"
LOCK = Path("dvc.lock")
MODEL = Path("models") / POLICY
SHOWN = {"accuracy": "accuracy", "reward": "reward", "examples": f"examples-{POLICY}"}  # of reports/run


def main(params: Params) -> None:
    name, store = params.publish.name, open_store(params.publish.store)
    adapter = (MODEL / ADAPTER).is_dir() and not params.publish.merge
    about: dict[str, Any] = {
        "kind": "adapter" if adapter else "model",
        "base": _base(),
        "data": _data(),
        "params": _public(params),
        "rewards": params.grpo.rewards,
        "accuracy": sorted({s.reward for source in load_sources(CONVERTED, "train") for s in source.samples}),
        "scores": {
            source: ways["greedy"] for source, ways in read_json(Path("predictions") / POLICY / "figures.json").items()
        },
    }
    head, changed = commit()
    where = {
        "commit": head,
        "dirty": bool(changed),
        "changed": changed,
        "dvc_lock": locked(read_yaml(LOCK), read_yaml(Path("dvc.yaml"))) if LOCK.is_file() else {},
        "packages": package_versions(),
        "hardware": {**machine(), "training": _training()},
        "parent": promoted(store, name, params.gate.label),
    }
    pictures = {f"{PICTURES}{shown}.png": page.RUN / f"{file}.png" for shown, file in SHOWN.items()}

    def card(version: str) -> str:
        return model_card(name, version, params.publish.license, about, where, pictures)

    with _to_publish(adapter, about["base"]) as folder:
        version = publish(store, name, folder, about, where, card, pictures)
    write_json(Path("reports/published.json"), {"name": name, "version": version})
    page.render()  # it now knows what was published
    print(f"publish: {name}@{version} in {store.url}")


@contextmanager
def _to_publish(adapter: bool, base: dict[str, Any]) -> Iterator[Path]:
    """The checkpoint's folder as it is released: the adapter with its base pinned, or the whole without it."""
    if not (MODEL / ADAPTER).is_dir():
        yield MODEL
        return
    work = Path("work/release")
    with whole_folder(work) as folder:
        if adapter:
            pinned(MODEL / ADAPTER, base, folder)
        else:
            shutil.copytree(
                MODEL, folder, dirs_exist_ok=True, ignore=lambda at, _: [ADAPTER] if at == str(MODEL) else []
            )
    yield work
    shutil.rmtree(work)


def _base() -> dict[str, Any]:
    """What was trained: a release that was pulled, a checkpoint of the hub, a folder, or one built from nothing."""
    digest = folder_digest(BASE)
    if (BASE / MANIFEST).is_file():
        pulled = read_json(BASE / MANIFEST)
        return {"kind": "release", "model": pulled["name"], "revision": pulled["version"], "sha256": digest}
    origin = read_json(BASE / "origin.json")
    if "model" not in origin:
        return {"kind": "built", "model": None, "revision": None, "sha256": digest}
    return {"kind": origin["kind"], "model": origin["model"], "revision": origin["revision"], "sha256": digest}


def _data() -> dict[str, str]:
    """The hash of every converted list, and of the list of its pictures' hashes."""
    paths = [*CONVERTED.glob("*/*.jsonl"), *CONVERTED.glob("*/pictures.json")]
    return {path.as_posix(): sha256(path) for path in sorted(paths)}


def _training() -> dict[str, Any] | None:
    """How long this policy's training took here, and how much memory; None where it came from DVC's cache."""
    noted, metrics = RECORDS / f"{POLICY}.json", Path("metrics") / f"{POLICY}.json"
    if not noted.is_file() or read_json(noted)["made"] != sha256(metrics):
        return None
    left = {"stage", "made", "started"}
    return {key: value for key, value in read_json(noted).items() if key not in left}


def _public(params: Params) -> dict[str, Any]:
    """The parameters that shaped the release, without the folders of this computer."""
    shown = params.model_dump(mode="json", by_alias=True, exclude={"publish", "gate"})
    hide(shown)
    plain: dict[str, Any] = json.loads(json.dumps(shown))  # as the manifest will be read
    return plain


if __name__ == "__main__":
    run_stage("publish", main)
