"""The original project's REC evaluation JSON: a list of {image, height, width, normal_caption, problem, solution}.

`solution` is [x0, y0, x1, y1] in pixels of the picture, or null for an expression without a target.
Left out on purpose: the variant whose boxes are in thousandths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row
from vlmr1.settings.sources import RecJson
from vlmr1.tasks.rec import QUESTION


def read_rows(spec: RecJson, root: Path) -> Iterator[Row]:
    """Every row of the list, in its order."""
    path = root / spec.annotations
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; data.root and the source's annotations name it together")
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(items, list):
        raise ValueError(f"{path}: a list of rows is needed, not a {type(items).__name__}")
    if not items:
        raise ValueError(f"{path}: no rows in it")
    yield from (_row(path, number, item) for number, item in enumerate(items))


def _row(path: Path, number: int, item: dict[str, Any]) -> Row:
    try:
        if "normal_caption" not in item and "problem" not in item:
            raise ValueError("no normal_caption")
        missing = [key for key in ("image", "width", "height", "solution") if key not in item]
        if missing:
            raise ValueError(f"no {missing[0]}")
        text = item.get("normal_caption") or item.get("problem", "").removeprefix(QUESTION).strip().removesuffix(".")
        solution = item["solution"]
        if solution and (not isinstance(solution, list) or len(solution) != 4):
            raise ValueError(f"solution {solution!r} is not a list of 4 numbers")
        x0, y0, x1, y1 = (float(v) for v in solution or (0, 0, 0, 0))
        boxes = ((x0, y0, x1, y1),) if solution else ()
        size = (int(item["width"]), int(item["height"]))
        return Row(number, (str(item["image"]),), (size,), "rec", "iou", str(text), boxes)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: row {number}: {error}; mend or remove the row") from error
