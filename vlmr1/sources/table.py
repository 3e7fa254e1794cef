"""A table of one's own: .jsonl, .json, .csv or .parquet, its columns named by `columns` in params.

Cells: `image` one name, several joined by `|`, or a JSON list; `box` a JSON list [x0, y0, x1, y1], or four columns as
`x0,y0,x1,y1`; for detection `box` a JSON list of these, `label` their names and `text` the names asked for, both as
lists like `image`. An empty box: nothing is to be found. Left out on purpose: one line a box; COCO and VOC say that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.answers.choices import choices_of
from vlmr1.boxes import Box, Size, rescale
from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Column, Table
from vlmr1.sources.lists import MEND_COLUMNS, fields_of, items, pictures, text
from vlmr1.sources.questions import automatic
from vlmr1.sources.reading import THOUSANDTHS, size_of_picture


def read_rows(spec: Table, root: Path) -> Iterator[Row]:
    """Every row of the table, in its order, boxes in pixels of the picture.

    Boxes in thousandths need the picture's size, so its head is read; boxes in pixels need no picture. Where `reward`
    is auto, an answer that is the letter of a choice the text lists is judged by mcq, a number by numeric, the rest by
    math.
    """
    names: dict[str, tuple[str, ...]] = {
        key: tuple(part.strip() for part in name.split(",")) for key, name in spec.columns.items()
    }
    wanted = {name for several in names.values() for name in several}
    for number, (where, item) in enumerate(items(root / spec.annotations, wanted)):
        try:
            cells = {key: _cell(fields_of(item), key, several) for key, several in names.items()}
            row = _row(spec, root, number, cells)
        except ValueError as error:
            reward = "math" if spec.reward == "auto" else spec.reward
            row = unread(number, spec.task, reward, ValueError(f"{where}: {error}; mend or remove the row"))
        yield row


def _cell(item: dict[str, Any], key: str, names: tuple[str, ...]) -> Any:
    """The value of a column; of several columns their values as a list, None where all are empty."""
    for name in names:
        if name not in item:
            raise ValueError(f"no column {name!r}, which columns.{key} names, among {', '.join(item)}; {MEND_COLUMNS}")
    values = [item[name] for name in names]
    if len(values) == 1:
        return values[0]
    return None if all(_empty(value) for value in values) else values


def _row(spec: Table, root: Path, number: int, cells: dict[str, Any]) -> Row:
    several = spec.task == "ovd"
    images = pictures(_list(spec, "image", cells.get("image")))
    if not images and spec.task in ("rec", "ovd"):
        raise ValueError(f"{spec.columns['image']}: empty where a picture's file name is needed")
    boxes = _boxes(spec.columns["box"], cells["box"], several) if "box" in cells else ()
    labels = _names(spec, "label", cells["label"]) if several else ()
    if several and len(labels) != len(boxes):
        raise ValueError(f"{spec.columns['label']}: {len(labels)} labels for {len(boxes)} boxes")
    sizes: tuple[Size, ...] = ()
    if spec.frame == "thousandths" and boxes:
        sizes = (size_of_picture(root / spec.images, images[0]),)
        boxes = tuple(rescale(box, THOUSANDTHS, sizes[0]) for box in boxes)
    said = "" if several else text(cells["text"]).strip()
    answer = text(cells.get("answer")).strip()
    return Row(
        number,
        images,
        sizes,
        spec.task,
        automatic(answer.upper() in choices_of(said), answer) if spec.reward == "auto" else spec.reward,
        text=said,
        boxes=boxes,
        labels=labels,
        asked=_names(spec, "text", cells["text"]) if several else (),
        answer=answer,
        group=text(cells.get("group")),
        kind=text(cells.get("kind")),
    )


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ("", "None", "null"))


def _list(spec: Table, key: Column, value: Any) -> list[Any]:
    """The values of a cell that holds one, several joined by `|`, or a JSON list."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = _json(spec.columns[key], value)
    elif isinstance(value, str):
        value = [part.strip() for part in value.split("|") if part.strip()]
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _names(spec: Table, key: Column, value: Any) -> tuple[str, ...]:
    return tuple(text(name) for name in _list(spec, key, value))


def _boxes(column: str, value: Any, several: bool) -> tuple[Box, ...]:
    """The one box of a cell, or its several; none where it is empty."""
    if _empty(value):
        return ()
    if isinstance(value, str):
        value = _json(column, value)
    if not isinstance(value, list):
        raise ValueError(f"{column}: {value!r} is not a list")
    return tuple(_box(column, each) for each in (value if several else [value]))


def _box(column: str, value: Any) -> Box:
    try:
        x0, y0, x1, y1 = (float(number) for number in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{column}: {value!r} is not 4 numbers, x0, y0, x1, y1") from error
    return (x0, y0, x1, y1)


def _json(column: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"{column}: {value[:60]!r} is not a JSON list ({what})") from error
