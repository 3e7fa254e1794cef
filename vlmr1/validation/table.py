"""A chunk of a source's rows as columns, one line a row: what every rule looks at.

Where a row has several boxes or pictures, its columns hold the worst of them. Left out on purpose: judging.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmr1.boxes import Size, area
from vlmr1.conversion import to_sample
from vlmr1.rows import Row
from vlmr1.sample import PLACE
from vlmr1.settings.sources import SourceSpec
from vlmr1.tasks import TASKS, gui
from vlmr1.validation.pictures import FORMATS, MODES, Facts, Looks, Near

ASKS_A_JUDGE = "llm"  # a reward that costs a request a row, and so is not asked here


class Repeats:
    """What was seen before: rows of a source, and pictures that evaluation asks about."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}  # what was asked of which pictures: what the truth was
        self.evaluated: dict[str, str] = {}  # a picture's hash, or its path where files are not read: its source
        self.looks = Near()

    def earlier(self, question: tuple[object, ...], truth: tuple[object, ...]) -> tuple[bool, bool]:
        """Whether the same was asked before, with the same truth and with another. 64 bits stand for each."""
        asked, answered = hash(question), hash(truth)
        known = self.rows.get(asked)
        self.rows.setdefault(asked, answered)
        return known == answered, known not in (None, answered)


def columns(
    name: str, spec: SourceSpec, root: Path, rows: Sequence[Row], looks: Looks, repeats: Repeats
) -> dict[str, list[Any]]:
    """The table of a chunk. Evaluation sources are to be given first, so that training rows can be held to them."""
    folder = root / spec.images
    where = str(folder)
    table: dict[str, list[Any]] = {}
    for row in rows:
        facts = looks.of(folder, row) if looks.settings.decode != "none" else None
        line = {"source": name, "row": row.row, **_pictures(row, facts), **_text(row), **_boxes(row, facts)}
        line |= _truth(name, spec, row, facts) | _repeats(name, spec, where, row, facts, repeats)
        for key, value in line.items():
            table.setdefault(key, []).append(value)
    return table


def _pictures(row: Row, facts: Sequence[Facts] | None) -> dict[str, Any]:
    if facts is None:
        names = [name for name in row.images if name.startswith("/") or ".." in name.split("/")]
        return {"path": not names}
    size = all(f.size is None or not row.sizes or f.size == row.sizes[i] for i, f in enumerate(facts))
    return {
        "path": all(f.inside for f in facts),
        "exists": all(f.exists or not f.inside for f in facts),
        "opens": all(f.opens or not f.exists for f in facts),
        "pixels": all(f.few_pixels for f in facts),
        "format": next((f.format for f in facts if f.format and f.format not in FORMATS), FORMATS[0]),
        "mode": next((f.mode for f in facts if f.mode and f.mode not in MODES), MODES[0]),
        "upright": all(f.upright for f in facts),
        "size": size,
    }


def _text(row: Row) -> dict[str, Any]:
    said = row.text.strip() if row.task != "ovd" else " ".join(row.asked).strip()
    return {"text": said, "places": row.text.count(PLACE) in (0, len(row.images))}


def _size(row: Row, facts: Sequence[Facts] | None) -> Size | None:
    """Of the first picture, in whose pixels boxes are."""
    if facts and facts[0].size is not None:
        return facts[0].size
    return row.sizes[0] if row.sizes else None


def _boxes(row: Row, facts: Sequence[Facts] | None) -> dict[str, Any]:
    """The worst of a row's boxes, in pixels; None where there is nothing to say."""
    found = dict.fromkeys(("box_left", "box_top", "box_right", "box_bottom", "box_width", "box_height", "box_share"))
    finite = all(math.isfinite(v) for box in row.boxes for v in box)
    if not row.boxes or not finite:
        return {"box_finite": finite, **found}
    x0, y0, x1, y1 = zip(*row.boxes, strict=True)
    found |= {"box_left": min(x0), "box_top": min(y0)}
    found |= {"box_width": min(b - a for a, b in zip(x0, x1, strict=True))}
    found |= {"box_height": min(b - a for a, b in zip(y0, y1, strict=True))}
    size = _size(row, facts)
    if size is not None:  # by how much a box passes the border
        found |= {"box_right": max(x1) - size[0], "box_bottom": max(y1) - size[1]}
        found |= {"box_share": max(map(area, row.boxes)) / max(1, size[0] * size[1])}
    return {"box_finite": finite, **found}


def _truth(name: str, spec: SourceSpec, row: Row, facts: Sequence[Facts] | None) -> dict[str, Any]:
    """Whether the task can read the truth, and whether the truth earns the row's reward in full."""
    labels = row.task != "ovd" or (len(row.labels) == len(row.boxes) and set(row.labels) <= set(row.asked))
    labels &= spec.format != "gui" or row.answer in gui.DEFECTS
    task = TASKS[row.task]
    if any(not math.isfinite(v) for box in row.boxes for v in box):
        return {"labels": labels, "answer": True, "itself": True}  # said by another rule
    sizes = tuple((size, size) for size in _sizes(row, facts))
    sample = to_sample(row, sizes, name, "")
    try:
        if row.reward not in task.METHODS:
            raise ValueError(f"no reward {row.reward} in task {row.task}")
        task.truth(sample)
    except ValueError:
        return {"labels": labels, "answer": False, "itself": True}
    if row.reward == ASKS_A_JUDGE:
        return {"labels": labels, "answer": True, "itself": True}
    size = sample.sizes[0] if sample.sizes else (0, 0)
    said = task.answer(f"<think></think><answer>{sample.solution}</answer>", sample, size)
    value = task.rewards(said, sample, ("accuracy",))["accuracy"].value
    return {"labels": labels, "answer": True, "itself": value >= 1 - 1e-9}


def _sizes(row: Row, facts: Sequence[Facts] | None) -> tuple[Size, ...]:
    if facts and all(f.size is not None for f in facts):
        return tuple(f.size for f in facts if f.size is not None)
    return row.sizes or tuple(_around(row) for _ in row.images)


def _around(row: Row) -> Size:
    """A picture's size where nobody says it: large enough for the boxes."""
    edges = [v for box in row.boxes for v in box[2:]]
    return (max([1, *(math.ceil(v) for v in edges)]),) * 2


def _repeats(
    name: str, spec: SourceSpec, folder: str, row: Row, facts: Sequence[Facts] | None, repeats: Repeats
) -> dict[str, Any]:
    marks = [f.hash for f in facts if f.hash] if facts else [f"{folder}/{image}" for image in row.images]
    question = (name, *(marks or row.images), row.text.strip().lower(), row.asked)
    same, other = repeats.earlier(question, (row.boxes, row.labels, row.answer.strip().lower()))
    line: dict[str, Any] = {"duplicate": not same, "contradiction": not other, "leak": True, "near_leak": True}
    looks = [(f.look, f.hash) for f in facts or [] if f.look is not None]
    if spec.role == "evaluate":
        repeats.evaluated |= dict.fromkeys(marks, name)
        for look, mark in looks:
            if repeats.looks.find(look) != mark:
                repeats.looks.add(look, mark)
        return line
    line["leak"] = not any(mark in repeats.evaluated for mark in marks)
    line["near_leak"] = not any(repeats.looks.find(look) not in (None, mark) for look, mark in looks)
    return line
