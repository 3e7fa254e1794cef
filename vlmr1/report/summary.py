"""What a run ends with: the table that matters, where the report is, and the line that pulls the checkpoint."""

from __future__ import annotations

import json

from ruamel.yaml import YAML

from vlmr1.files import sha256
from vlmr1.release.manifest import MANIFEST
from vlmr1.release.store import open_store
from vlmr1.report.page import HTML, PUBLISHED, RECORD, RUN, render, table_that_matters
from vlmr1.settings import PARAMS, load_params


def say() -> None:
    """Print it, and bring the page up to date. Raises FileNotFoundError where there is no run to tell of."""
    if not (RUN / "facts.json").is_file():
        raise FileNotFoundError(f"{RUN}/facts.json: no run to tell of yet; `dvc repro` makes one")
    render()
    facts = json.loads((RUN / "facts.json").read_text(encoding="utf-8"))
    rows = table_that_matters(facts)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(f"\ngreedy {facts['title']} [95 % interval]")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{facts['sentences'][0]}")
    if _outdated():
        print("\nnote: params.yaml has changed since this run; `dvc repro` makes the run it now describes")
    print(f"\nreport  {HTML}")
    if not PUBLISHED.is_file():
        print("pull    nothing is published yet; `dvc repro` does it")
        return
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    name = f"{published['name']}@{published['version']}"
    store = load_params().publish.store
    if open_store(store).size(f"{published['name']}/{published['version']}/{MANIFEST}") is not None:
        print(f"pull    vlmr1 pull {name} --to checkpoints/{published['name']}")
    else:
        print(f"pull    {name} is not in {store}; `dvc repro --force --single-item publish` puts it there again")


def _outdated() -> bool:
    """Whether params.yaml now says something else of the run whose results these are, as far as that was noted."""
    noted = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    if noted.get("facts") != sha256(RUN / "facts.json"):
        return False
    then, now = (YAML(typ="safe").load(text) for text in (noted["params"], PARAMS.read_text(encoding="utf-8")))
    return any(then.get(block) != now.get(block) for block in {*then, *now} - {"publish"})
