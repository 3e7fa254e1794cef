"""REC as one expression a line: {img_path, expression, bbox, width, height}, bbox [x0, y0, x1, y1] in pixels.

A bbox of null or [] says that nothing answers the expression. Other fields are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row, unread
from vlmr1.settings.sources import RecJsonl
from vlmr1.sources.reading import At, corners, json_lines, size_of, take


def read_rows(spec: RecJsonl, root: Path) -> Iterator[Row]:
    """Every line, in its order."""
    path = root / spec.annotations
    for number, (line, item) in enumerate(json_lines(path)):
        try:
            with At(path, "line", line):
                row = _row(number, item)
        except ValueError as error:
            row = unread(number, "rec", "iou", error)
        yield row


def _row(number: int, item: dict[str, Any]) -> Row:
    if "bbox" not in item:
        raise ValueError("no bbox")
    boxes = (corners(item["bbox"], "bbox"),) if item["bbox"] not in (None, []) else ()
    image, text, size = take(item, "img_path", str), take(item, "expression", str), size_of(item)
    return Row(number, (image,), (size,), "rec", "iou", text, boxes)
