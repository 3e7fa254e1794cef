"""What the UI shows of a stage: progress while it trains, then tables, curves and pictures, from the files it wrote."""

from __future__ import annotations

import base64
import json
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from vlmr1.policies import LABELS
from vlmr1.sample import lines_of

DESCRIBED = {
    "accuracy": "What every policy is judged by on every source",
    "reward": "GRPO's reward by step",
    "length": "GRPO's completion length by step",
}
ROWS = 100  # of a rule, in a table
SECONDS = 2.0  # between two looks at a training's metrics


def follow_training(stage: str, done: threading.Event) -> None:
    """Keep a progress artifact in step with a training stage until `done`; at its end show the curves."""
    name = stage.replace("@", "-")
    path = Path("work") / name / "metrics.jsonl"  # there while the stage runs
    artifact: Any = None
    rows: list[dict[str, float]] = []
    shown, alarms = -1.0, 0
    while True:
        finished = done.wait(SECONDS)
        kept = Path("logs") / name / "metrics.jsonl"  # there when it has ended well
        source = kept if finished and rows and kept.is_file() else path
        if source.is_file():
            rows = _rows(source)
            share = 100 * rows[-1]["step"] / rows[-1]["steps"] if rows else 0.0
            if artifact is None:
                artifact = create_progress_artifact(
                    progress=share, key=_key(name, "progress"), description=f"{stage}: steps done"
                )
            elif share != shown:
                update_progress_artifact(artifact, progress=share)
            shown = share
            alarms = _alarms(name, source.parent, alarms)
            if finished and rows:
                _curves(name, rows)
        if finished:
            return


def _rows(path: Path) -> list[dict[str, float]]:
    """The whole lines of a file that is being appended to."""
    return [json.loads(line) for line in lines_of(path.read_text(encoding="utf-8"))]


def _alarms(name: str, folder: Path, shown: int) -> int:
    """Show the alarms of a training that are not shown yet; how many there are."""
    path = folder / "alarms.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = [json.loads(line)["message"] for line in lines_of(text)]
    if len(found) > shown:
        text = "\n".join(f"- {message}" for message in found)
        description = f"{name}: signs that the policy games its reward"
        create_markdown_artifact(f"## Alarms\n\n{text}\n", key=_key(name, "alarms"), description=description)
    return len(found)


def _curves(name: str, rows: list[dict[str, float]]) -> None:
    from vlmr1.report.figures import curves, reward_curves  # matplotlib, wanted only here

    keys = reward_curves(rows)
    keys = {key: label for key, label in keys.items() if key in rows[0]} or {"loss": "loss"}
    label = "reward" if "reward" in keys else "loss"
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "curves.png"
        curves(rows, keys, label, picture)
        _image(_key(name, "curves"), picture, f"{name}: {label} by step")
        if "completion_length" in rows[0]:
            curves(rows, {"completion_length": "length"}, "completion length, tokens", picture)
            _image(_key(name, "length"), picture, f"{name}: completion length by step")
            watched = {"judged": "judged metric", "parse_failure_rate": "cannot be read", "truncated_share": "cut off"}
            curves(rows, watched | {"duplicate_share": "said before"}, "share of completions", picture)
            _image(_key(name, "watch"), picture, f"{name}: what tells of reward hacking, by step")
            curves(rows, {"boxes": "boxes"}, "boxes a completion", picture)
            _image(_key(name, "boxes"), picture, f"{name}: boxes a completion by step")


def _key(*parts: str) -> str:
    """Artifact keys are lower-case words joined by dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _image(key: str, path: Path, description: str) -> None:
    # As Markdown: an image artifact would print the whole data URL below the picture.
    create_markdown_artifact(f"![{description}]({_data_url(path)})", key=key, description=description)


def _data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _validation() -> None:
    """The report with its pictures, and a table of the rules and one of the rows that offend."""
    folder = Path("reports/validation")
    if not (folder / "validation.md").is_file():
        return  # a list that cannot be read at all leaves none; the stage's own sentence names it
    text = (folder / "validation.md").read_text(encoding="utf-8")
    for path in sorted((folder / "pictures").glob("*.png")):
        text = text.replace(f"(pictures/{path.name})", f"({_data_url(path)})")
    create_markdown_artifact(text, key="validation", description="What validation wanted and what it found")
    findings = json.loads((folder / "validation.json").read_text(encoding="utf-8"))["findings"]
    rules = [
        {"rule": f["rule"], "wanted": f["wants"], "offends": "refused" if f["refuses"] else "warned"}
        | {"rows": sum(f["rows"].values()), "in": ", ".join(f"{name} {n}" for name, n in f["rows"].items())}
        for f in findings
    ]
    create_table_artifact(rules, key="validation-rules", description="Every rule, and how many rows offend where")
    rows = [{"rule": f["rule"], **example} for f in findings for example in f["examples"][:ROWS]]
    if rows:
        create_table_artifact(rows, key="validation-rows", description=f"The first {ROWS} offending rows of each rule")


def _evaluation(policy: str) -> Callable[[], None]:
    def show() -> None:
        figures = json.loads(Path(f"predictions/{policy}/figures.json").read_text(encoding="utf-8"))
        rows = [
            {"source": source, "decoding": way}
            | {key: value for key, value in f.items() if not isinstance(value, dict)}
            for source, ways in figures.items()
            for way, f in ways.items()
        ]
        create_table_artifact(rows, key=_key("scores", policy), description=f"{policy}: figures with 95 % intervals")

    return show


def _report() -> None:
    from vlmr1.report.page import parts, table_that_matters

    run = Path("reports/run")
    facts = json.loads((run / "facts.json").read_text(encoding="utf-8"))
    head, *rows = table_that_matters(facts)
    create_table_artifact(
        [dict(zip(head, row, strict=True)) for row in rows],
        key="evaluation",
        description=f"`{facts['title']}`, greedy, with its 95 % interval",
    )
    head, *rows = parts(facts)
    if rows:
        told = [dict(zip(head, row, strict=True)) for row in rows]
        create_table_artifact(told, key="evaluation-parts", description="The same, told apart")
    said = "\n".join(f"- {sentence}" for sentence in facts["sentences"]).replace("Acc@0.5", "`Acc@0.5`")  # no address
    create_markdown_artifact(f"## What the run shows\n\n{said}\n", key="findings", description="In plain sentences")
    for path in sorted(run.glob("*.png")):
        _image(_key("report", path.stem), path, DESCRIBED.get(path.stem, f"Answers drawn on pictures, {path.stem}"))


def _publication() -> None:
    release: dict[str, Any] = json.loads(Path("reports/published.json").read_text(encoding="utf-8"))
    line = f"vlmr1 pull {release['name']}@{release['version']} --to checkpoints/{release['name']}"
    create_markdown_artifact(f"```\n{line}\n```\n", key="release", description="How to get the published checkpoint")


AFTER: dict[str, Callable[[], None]] = {
    "validate": _validation,
    **{f"evaluate@{p}": _evaluation(p) for p in LABELS},
    "report": _report,
    "publish": _publication,
}
