"""Sample rollouts of a GRPO training as pictures: the best and the worst answers of its newest step, drawn.

Read from `rollouts.jsonl` and the converted training samples. Left out on purpose: choosing by hand, which the file
itself is for.
"""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.showing import show_picture
from vlmr1.report.examples import examples
from vlmr1.sample import Source, lines_of, load_sources
from vlmr1.tasks import TASKS, read_of

SHOWN = 4  # right and wrong ones
TAIL = 4_000_000  # bytes of the file that the newest step is looked for in


def show_rollouts(path: Path) -> None:
    """Draw answers of the newest step, with what they were paid below."""
    rows = _newest(path)
    sources = {source.name: source for source in _sources(Path.cwd())}
    if not rows:
        return
    seen: set[Any] = set()
    chosen = []  # one answer of each prompt, the extremes first
    for row in sorted(rows, key=lambda row: -abs(row["advantage"])):
        if (row["source"], row["id"]) not in seen:
            seen.add((row["source"], row["id"]))
            chosen.append(row)
    predictions: dict[str, list[dict[str, Any]]] = {}
    for row in chosen:
        predictions.setdefault(row["source"], []).append(_prediction(row, sources[row["source"]]))
    step = rows[0]["step"]
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "rollouts.png"
        examples(predictions, sources, SHOWN, picture)
        show_picture("rollouts", picture, f"grpo: rollouts of step {step}", _paid(chosen))


def _paid(rows: list[dict[str, Any]]) -> str:
    """A table of what was said, and of each reward with its reason."""
    names = list(rows[0]["rewards"])
    lines = [f"| answer | reward | advantage | {' | '.join(names)} |", f"|---|---|---|{'---|' * len(names)}"]
    for row in rows[: 2 * SHOWN]:
        rewards = [f"{row['rewards'][n]['value']:.2f} {_code(row['rewards'][n]['reason'] or '')}" for n in names]
        cells = [_code(row["completion"]), f"{row['reward']:.2f}", f"{row['advantage']:+.2f}", *rewards]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Words that stay inside their cell, tags and all."""
    plain = " ".join(text.replace("|", "/").replace("`", "'").split())
    return f"`{plain if len(plain) <= 120 else plain[:119] + '…'}`" if plain else ""


def _prediction(row: dict[str, Any], source: Source) -> dict[str, Any]:
    """A rollout in the form that the evaluation leaves its answers in."""
    sample = next(sample for sample in source.samples if sample.id == row["id"])
    task = TASKS[sample.task]
    height, width = row["input_size"]
    said = task.answer(row["completion"], sample, (width, height))
    return {"index": sample.id, **read_of(said, sample.task), **task.score(said, sample)}


@lru_cache(maxsize=1)
def _sources(project: Path) -> list[Source]:
    return load_sources(project / "data/converted", "train")


def _newest(path: Path) -> list[dict[str, Any]]:
    """The rows of the last step, from the file's end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = lines_of(file.read().decode("utf-8", errors="replace"))
    rows = [json.loads(line) for line in lines[1:] or lines]  # the first may be cut
    return [row for row in rows if row["step"] == rows[-1]["step"]]
