"""A chunk of a source's rows as columns, one line a row: what every rule looks at.

Where a row has several boxes or pictures, its columns hold the worst of them. Left out on purpose: judging.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlmr1.boxes import Size, area
from vlmr1.conversion import BOXED, to_sample
from vlmr1.pictures import FORMATS
from vlmr1.rows import Row
from vlmr1.sample import PLACE
from vlmr1.settings.sources import SourceSpec
from vlmr1.tasks import TASKS, gui
from vlmr1.validation.pictures import MODES, Facts, Looks, Near

MEASURES = ("box_left", "box_top", "box_right", "box_bottom", "box_width", "box_height", "box_share")
ASKS_A_JUDGE = "llm"  # a reward that costs a request a row, and so is not asked here


class Repeats:
    """What was seen before: rows of a source, and pictures that evaluation asks about."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, int]] = {}  # what was asked of which pictures: what the truth was, which row
        self.evaluated: dict[str, str] = {}  # a picture's hash, or its path where files are not read: where it is
        self.looks = Near()

    def earlier(self, question: tuple[object, ...], truth: tuple[object, ...], row: int) -> tuple[str, str]:
        """The earlier row that asked the same, by whether its truth was the same. 64 bits stand for each."""
        answered = hash(truth)
        known, first = self.rows.setdefault(hash(question), (answered, row))
        if first == row:
            return "", ""
        return ("as row " + str(first), "") if known == answered else ("", f"otherwise in row {first}")


def columns(
    name: str, spec: SourceSpec, root: Path, rows: Sequence[Row], looks: Looks, repeats: Repeats
) -> dict[str, list[Any]]:
    """The table of a chunk. Evaluation sources are to be given first, so that training rows can be held to them."""
    folder = root / spec.images
    where, decoded = str(folder), looks.settings.decode == "full"
    lines = []
    for row in rows:
        line: dict[str, Any] = {"source": name, "row": row.row, "boxes": "", "reads": row.fault}
        if not row.fault:  # else nothing is known of it
            facts = looks.of(folder, row) if looks.settings.decode != "none" else None
            line |= _pictures(row, facts) if facts is not None else _paths(row, looks, folder)
            line |= {**_text(row), **_boxes(row, facts), **_truth(name, row, facts)}
            line |= _repeats(name, spec, where, row, facts, repeats, decoded)
        lines.append(line)
    empty = dict.fromkeys(MEASURES) | {"text_length": 0}
    keys = dict.fromkeys(key for line in lines for key in line)
    return {key: [line.get(key, empty.get(key, "")) for line in lines] for key in keys}


def _first(row: Row, facts: Sequence[Facts], wrong: Callable[[Facts], str]) -> str:
    """What is wrong with the first of a row's pictures that something is wrong with, after its name."""
    for image, one in zip(row.images, facts, strict=True):
        if said := wrong(one):
            return f"{image}: {said}"
    return ""


def _paths(row: Row, looks: Looks, folder: Path) -> dict[str, str]:
    """What can be said without looking at files."""
    out = [name for name in row.images if not looks.stays(folder, name)]
    return {"path": f"{out[0]}: leaves its folder" if out else ""}


def _pictures(row: Row, facts: Sequence[Facts]) -> dict[str, str]:
    missing = "no picture" if row.task in BOXED and not row.images else ""
    sizes: Sequence[Size | None] = row.sizes or [None] * len(row.images)
    declared = [
        f"{image}: {one.size[0]} x {one.size[1]}, declared {size[0]} x {size[1]}"
        for image, one, size in zip(row.images, facts, sizes, strict=False)
        if size is not None and one.size is not None and one.size != size
    ]
    return {
        "path": _first(row, facts, lambda f: "" if f.inside else "leaves its folder"),
        "exists": missing or _first(row, facts, lambda f: "not there" if f.inside and not f.exists else ""),
        "opens": _first(row, facts, lambda f: f.fault if f.exists and not f.opens else ""),
        "pixels": _first(row, facts, lambda f: "" if f.few_pixels else "too many"),
        "format": _first(row, facts, lambda f: f.format if f.format not in ("", *FORMATS) else ""),
        "mode": _first(row, facts, lambda f: f.mode if f.mode not in ("", *MODES) else ""),
        "upright": _first(row, facts, lambda f: "" if f.upright else "turned"),
        **({"size": declared[0] if declared else ""} if row.sizes else {}),
    }


def _text(row: Row) -> dict[str, Any]:
    said = row.text.strip() if row.task != "ovd" else " ".join(row.asked).strip()
    places = row.text.count(PLACE)
    odd = places not in (0, len(row.images))
    return {
        "text": "" if said else "empty",
        "text_length": len(said),
        "places": f"{places} places, {len(row.images)} pictures" if odd else "",
    }


def _size(row: Row, facts: Sequence[Facts] | None) -> Size | None:
    """Of the first picture, in whose pixels boxes are."""
    if facts and facts[0].size is not None:
        return facts[0].size
    return row.sizes[0] if row.sizes else None


def _boxes(row: Row, facts: Sequence[Facts] | None) -> dict[str, Any]:
    """The worst of a row's boxes, in pixels; None where there is nothing to say."""
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    size = _size(row, facts)
    said = ", ".join(f"[{', '.join(f'{v:g}' for v in box)}]" for box in row.boxes[:3])
    found["boxes"] = said + (f" in {size[0]} x {size[1]}" if size and said else "")
    finite = all(math.isfinite(v) for box in row.boxes for v in box)
    found["box_finite"] = "" if finite else "not finite"
    if not row.boxes or not finite:
        return found
    x0, y0, x1, y1 = zip(*row.boxes, strict=True)
    found |= {"box_left": min(x0), "box_top": min(y0)}
    found |= {"box_width": min(b - a for a, b in zip(x0, x1, strict=True))}
    found |= {"box_height": min(b - a for a, b in zip(y0, y1, strict=True))}
    if size is not None:  # by how much a box passes the border
        found |= {"box_right": max(x1) - size[0], "box_bottom": max(y1) - size[1]}
        found |= {"box_share": max(map(area, row.boxes)) / max(1, size[0] * size[1])}
    return found


def _truth(name: str, row: Row, facts: Sequence[Facts] | None) -> dict[str, str]:
    """Whether the task can read the truth, and whether the truth earns the row's reward in full."""
    told = {"labels": _labels(row), "answer": "", "itself": ""}
    task = TASKS[row.task]
    if row.reward not in task.METHODS:
        return told | {"answer": f"reward {row.reward!r} is none of task {row.task}'s: {', '.join(task.METHODS)}"}
    if (row.boxes and not row.images) or any(not math.isfinite(v) for box in row.boxes for v in box):
        return told  # said by another rule
    sample = to_sample(row, tuple((size, size) for size in _sizes(row, facts)), name, "")
    try:
        task.truth(sample)
    except ValueError as error:
        return told | {"answer": str(error).removeprefix(f"{name} id {row.row}: ")}
    if row.reward == ASKS_A_JUDGE:
        return told
    size = sample.sizes[0] if sample.sizes else (0, 0)
    said = task.answer(f"<think></think><answer>{sample.solution}</answer>", sample, size)
    reward = task.rewards(said, sample, ("accuracy",))["accuracy"]
    return told if reward.value >= 1 - 1e-9 else told | {"itself": f"{reward.value:g}: {reward.reason}"}


def _labels(row: Row) -> str:
    if row.task == "gui" and row.reward == "all_match":
        return "" if row.answer in gui.DEFECTS else row.answer or "none"
    if len(row.labels) != len(row.boxes) and row.task == "ovd":
        return f"{len(row.labels)} labels, {len(row.boxes)} boxes"
    odd = [label for label in row.labels if label not in row.asked]
    return odd[0] or "an empty label" if odd else ""


def _sizes(row: Row, facts: Sequence[Facts] | None) -> tuple[Size, ...]:
    if facts and all(f.size is not None for f in facts):
        return tuple(f.size for f in facts if f.size is not None)
    return row.sizes or tuple(_around(row) for _ in row.images)


def _around(row: Row) -> Size:
    """A picture's size where nobody says it: large enough for the boxes."""
    edges = [v for box in row.boxes for v in box[2:]]
    return (max([1, *(math.ceil(v) for v in edges)]),) * 2


def _repeats(
    name: str,
    spec: SourceSpec,
    folder: str,
    row: Row,
    facts: Sequence[Facts] | None,
    repeats: Repeats,
    decoded: bool,
) -> dict[str, str]:
    names = [f"{folder}/{image}" for image in row.images]
    marks = [f.hash or name for f, name in zip(facts, names, strict=True)] if facts else names
    question = (name, *marks, row.text.strip().lower(), row.asked)
    same, other = repeats.earlier(question, (row.boxes, row.labels, row.answer.strip().lower()), row.row)
    line = {"duplicate": same, "contradiction": other, "leak": ""} | ({"near_leak": ""} if decoded else {})
    looks = [(f.look, image) for f, image in zip(facts or [], row.images, strict=False) if f.look is not None]
    if spec.role == "evaluate":
        for mark, image in zip(marks, row.images, strict=True):
            repeats.evaluated.setdefault(mark, f"{image} of {name}")
        for look, image in looks:
            repeats.looks.add(look, f"{image} of {name}")
        return line
    line["leak"] = next((repeats.evaluated[mark] for mark in marks if mark in repeats.evaluated), "")
    if decoded and not line["leak"]:
        line["near_leak"] = next((found for look, _ in looks if (found := repeats.looks.find(look))), "")
    return line
