"""What a run ends with: the table that matters, where the report is, and the line that pulls the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from vlmr1.report.page import HTML, RUN, render, table_that_matters


def say() -> None:
    """Print it, and bring the page up to date. Raises FileNotFoundError where there is no run to tell of."""
    if not (RUN / "facts.json").is_file():
        raise FileNotFoundError(f"{RUN}/facts.json: no run to tell of yet; `dvc repro` makes one")
    render()
    facts = json.loads((RUN / "facts.json").read_text(encoding="utf-8"))
    rows = table_that_matters(facts)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print("\nAcc@0.5, greedy [95 % interval]  mean IoU")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{facts['sentences'][0]}")
    print(f"\nreport  {HTML}")
    published = json.loads(Path("metrics/publish.json").read_text(encoding="utf-8"))
    print(f"pull    vlmr1 pull {published['name']}@{published['version']} --to checkpoints/{published['name']}")
