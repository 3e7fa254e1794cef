"""publish: GRPO's checkpoint to the release store, with its card and manifest. Run: `python -m vlmr1.stages.publish`.

The receipt (reports/published.json) names the version, which follows from what was released.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmr1.files import write_json
from vlmr1.provenance import commit, folder_digest, package_versions
from vlmr1.release.card import model_card
from vlmr1.release.publish import publish
from vlmr1.release.store import open_store
from vlmr1.report import page
from vlmr1.settings import Params
from vlmr1.stages import BASE, CONVERTED, read_json, run_stage

POLICY = "grpo"


def main(params: Params) -> None:
    figures = read_json(Path("predictions") / POLICY / "figures.json")
    scores = {name: how["greedy"] for name, how in figures.items()}
    origin = read_json(BASE / "origin.json")
    about = {
        "base": f"{origin['model']} at {origin['revision']}"
        if "model" in origin
        else "built from nothing and warmed up",
        "scores": scores,
        "params": _public(params),
        "data_sha256": {"data/converted": folder_digest(CONVERTED)},
    }
    head, dirty = commit()
    where = {"commit": head, "dirty": dirty, "packages": package_versions()}
    name = params.publish.name
    version = publish(
        open_store(params.publish.store),
        name,
        Path("models") / POLICY,
        Path("work/release"),
        about,
        where,
        lambda version: model_card(name, version, about, where),
    )
    write_json(Path("reports/published.json"), {"name": name, "version": version})
    page.render()  # it now knows what was published
    print(f"publish: {name}@{version} in {params.publish.store}")


def _public(params: Params) -> dict[str, Any]:
    """The parameters that shaped the release, without the folders of this computer."""
    shown = params.model_dump(mode="json", by_alias=True, exclude={"publish", "report", "gate"})
    shown["data"]["root"] = Path(params.data.root).name
    if params.warmup.pretrained is not None and Path(params.warmup.pretrained.model).is_dir():
        shown["warmup"]["pretrained"]["model"] = Path(params.warmup.pretrained.model).name
    return shown


if __name__ == "__main__":
    run_stage("publish", main)
