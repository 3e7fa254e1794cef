"""What the UI shows of a stage that has ended: tables and pictures from the files it wrote."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from flows.showing import data_url, key_of, show_picture, show_table, show_text
from vlmr1.policies import LABELS
from vlmr1.settings import load_params

DESCRIBED = {
    "accuracy": "What every policy is judged by on every source",
    "reward": "GRPO's reward by step",
    "length": "GRPO's completion length by step",
}
ROWS = 100  # of a rule, in a table


def _validation() -> None:
    """The report with its pictures, and a table of the rules and one of the rows that offend."""
    folder = Path("reports/validation")
    if not (folder / "validation.md").is_file():
        return  # a list that cannot be read at all leaves none; the stage's own sentence names it
    text = (folder / "validation.md").read_text(encoding="utf-8")
    for path in sorted((folder / "pictures").glob("*.png")):
        text = text.replace(f"(pictures/{path.name})", f"({data_url(path)})")
    show_text("validation", text, "What validation wanted and what it found")
    findings = json.loads((folder / "validation.json").read_text(encoding="utf-8"))["findings"]
    rules = [
        {"rule": f["rule"], "wanted": f["wants"], "offends": "refused" if f["refuses"] else "warned"}
        | {"rows": sum(f["rows"].values()), "in": ", ".join(f"{name} {n}" for name, n in f["rows"].items())}
        for f in findings
    ]
    show_table("validation-rules", rules, "Every rule, and how many rows offend where")
    rows = [{"rule": f["rule"], **example} for f in findings for example in f["examples"][:ROWS]]
    if rows:
        show_table("validation-rows", rows, f"The first {ROWS} offending rows of each rule")


def _evaluation(policy: str) -> Callable[[], None]:
    def show() -> None:
        figures = json.loads(Path(f"predictions/{policy}/figures.json").read_text(encoding="utf-8"))
        rows = [
            {"source": source, "decoding": way}
            | {key: value for key, value in f.items() if not isinstance(value, dict)}
            for source, ways in figures.items()
            for way, f in ways.items()
        ]
        show_table(key_of("scores", policy), rows, f"{policy}: figures with 95 % intervals")

    return show


def _report() -> None:
    from vlmr1.report.page import parts, table_that_matters

    run = Path("reports/run")
    facts = json.loads((run / "facts.json").read_text(encoding="utf-8"))
    head, *rows = table_that_matters(facts)
    told = [dict(zip(head, row, strict=True)) for row in rows]
    show_table("evaluation", told, f"`{facts['title']}`, greedy, with its 95 % interval")
    head, *rows = parts(facts)
    if rows:
        told = [dict(zip(head, row, strict=True)) for row in rows]
        show_table("evaluation-parts", told, "The same, told apart")
    said = "\n".join(f"- {sentence}" for sentence in facts["sentences"]).replace("Acc@0.5", "`Acc@0.5`")  # no address
    show_text("findings", f"## What the run shows\n\n{said}\n", "In plain sentences")
    for path in sorted(run.glob("*.png")):
        show_picture(
            key_of("report", path.stem), path, DESCRIBED.get(path.stem, f"Answers drawn on pictures, {path.stem}")
        )


def _publication() -> None:
    published = json.loads(Path("reports/published.json").read_text(encoding="utf-8"))
    show_release(load_params().publish.store, published["name"], published["version"], "published")


def show_release(store: str, name: str, version: str, how: str) -> None:
    """Where a release lies, and how to look at it and get it. No link: browsers open neither file:// nor s3://."""
    root = store.rstrip("/") if "://" in store else str(Path(store).resolve())
    lines = [f"vlmr1 releases show {name}@{version}", f"vlmr1 pull {name}@{version} --to checkpoints/{name}"]
    told = "\n".join(f"{line} --store {shlex.quote(root)}" for line in lines)
    text = f"## {name}@{version}\n\n{how}; it lies in `{root}/{name}/{version}`\n\n```\n{told}\n```\n"
    show_text("release", text, f"{name}@{version}: {how}, and how to get it")


AFTER: dict[str, Callable[[], None]] = {
    "validate": _validation,
    **{f"evaluate@{p}": _evaluation(p) for p in LABELS},
    "report": _report,
    "publish": _publication,
}
