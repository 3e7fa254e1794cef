"""The original project's REC evaluation JSON: a list of {image, height, width, normal_caption, problem, solution}.

`solution` is [x0, y0, x1, y1], in pixels of the picture or in thousandths of it as the source's `frame` says (the
InternVL variant), or null for an expression without a target. `normal_caption` is the bare expression; a row without
it has it inside `problem`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.boxes import rescale
from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Frame, RecJson
from vlmr1.sources.reading import THOUSANDTHS, At, corners, expression_of, load_list, size_of, take


def read_rows(spec: RecJson, root: Path) -> Iterator[Row]:
    """Every row of the list, in its order."""
    path = root / spec.annotations
    for number, item in enumerate(load_list(path)):
        try:
            with At(path, "row", number):
                row = _row(number, item, spec.frame)
        except ValueError as error:
            row = unread(number, "rec", "iou", error)
        yield row


def _row(number: int, item: Any, frame: Frame) -> Row:
    image = take(item, "image", str)
    if item.get("normal_caption") is None and item.get("problem") is None:
        raise ValueError("no normal_caption")
    has_caption = item.get("normal_caption") is not None
    text = take(item, "normal_caption", str) if has_caption else expression_of(take(item, "problem", str))
    size = size_of(item)
    if "solution" not in item:
        raise ValueError("no solution")
    if item["solution"] in (None, []):
        return Row(number, (image,), (size,), "rec", "iou", text)
    box = corners(item["solution"], "solution")
    box = rescale(box, THOUSANDTHS, size) if frame == "thousandths" else box
    return Row(number, (image,), (size,), "rec", "iou", text, (box,))
