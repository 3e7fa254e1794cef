"""LISA's ReasonSeg: a folder of label files {text: […], is_sentence, shapes: [{label, points}]}, the picture beside it.

One text makes one row, whose box is that of the mask: least and greatest x and y of all polygons of the target, or
with `polygons: first` of its first one, as a published recipe has it. Shapes labelled `ignore` or `flag` are no part
of the target, every other is, as in LISA's own reader; a file without a target gives rows without a box, a malformed
one a row with its fault.
Files go by name; a picture is the one of the same stem in the picture folder, `.jpg` where there is none. `kind` is
"sentence" or "phrase". Some published files are not in UTF-8 but in Windows-1252, and are read so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.boxes import Box
from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Lisa
from vlmr1.sources.reading import NOT_FOUND, At, numbers, take, take_texts

PICTURES = {".jpg", ".jpeg", ".png"}


def read_rows(spec: Lisa, root: Path) -> Iterator[Row]:
    """Rows of every label file of the folder; sizes are the pictures' own, which the files do not say."""
    folder, images = root / spec.annotations, root / spec.images
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: {NOT_FOUND}")
    stems: dict[str, str] = {}
    if images.is_dir():
        stems = {path.stem: path.name for path in sorted(images.iterdir()) if path.suffix.lower() in PICTURES}
    count = 0
    for path in sorted(folder.glob("*.json")):
        try:
            with At(path):
                item = _load(path)
                box = _box(item, spec.polygons)
                texts = take_texts(item, "text")
                kind = "sentence" if take(item, "is_sentence", bool) else "phrase"
        except ValueError as error:
            yield unread(count, "rec", "iou", error)
            count += 1
            continue
        for text in texts:
            image = (stems.get(path.stem, f"{path.stem}.jpg"),)
            yield Row(count, image, (), "rec", "iou", text, (box,) if box else (), kind=kind)
            count += 1
    if not count:
        raise ValueError(f"{folder}: no label file with a text in it")


def _load(path: Path) -> Any:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252")
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error


def _box(item: Any, polygons: str) -> Box | None:
    """The box of the target's polygons."""
    found = []
    for shape in take(item, "shapes", list):
        label = take(shape, "label", str).lower()
        if "ignore" not in label and label != "flag":
            points = [numbers(point, 2, "a point") for point in take(shape, "points", list)]
            if not points:
                raise ValueError("a shape without points")
            found.append(points)
    if not found:
        return None
    xs, ys = zip(*(point for points in (found if polygons == "all" else found[:1]) for point in points), strict=True)
    return (min(xs), min(ys), max(xs), max(ys))
