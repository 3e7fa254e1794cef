"""Boxes and their labels in JSON that is whole: lists of objects, single objects, objects one after the other.

A box is the value of `bbox_2d` or a kin of it, four corners by name, or else the first four numbers an object lists.
Left out on purpose: broken JSON, which `vlmr1.answers.scanning` reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box", "bounding_box", "bboxes", "boxes")
LABEL_KEYS = ("label", "name", "class", "class_name", "category", "category_name", "object", "text")  # the first counts
CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_DECODER = json.JSONDecoder(parse_int=float)  # as float: of an integer too long Python's own makes an error
_OPENING = re.compile(r"[\[{]")
_NUMBER = re.compile(r"\s*+[-+]?+\d{1,40}+(?:\.\d{0,40}+)?+(?:[eE][-+]?+\d{1,3}+)?+\s*+")

Numbers = tuple[float, float, float, float]


def whole(text: str) -> list[Any] | None:
    """The JSON values in a text if objects are among them and none is broken; what stands between is passed over."""
    if "{" not in text:
        return None
    values, place = [], 0
    while (opening := _OPENING.search(text, place)) is not None:
        try:
            value, place = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            return None
        values.append(value)
    return values


def listed(values: list[Any]) -> Iterator[tuple[Numbers | None, str, str]]:
    """(four numbers, label, "") of every box in order; (None, label, why) of an item that ought to hold one."""
    waiting = values[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not value:
                yield None, "", "an object without a box"
                continue
            label, boxes = _label(value), _boxes(value)
            if boxes is not None:
                for box in boxes:
                    numbers = four(box)
                    yield numbers, label, "" if numbers else f"box {_short(box)} is not four numbers"
                continue
            inner = [one for one in value.values() if isinstance(one, dict | list)]
            if not inner:
                yield None, label, "an object without a box"
            waiting.extend(reversed(inner))
        elif isinstance(value, list):
            numbers = four(value)
            if numbers is not None:
                yield numbers, "", ""
            elif value and not any(isinstance(one, dict | list) for one in value):
                yield None, "", f"{_short(value)} is no box"
            else:
                waiting.extend(reversed(value))
        elif value is not None:
            yield None, "", f"{_short(value)} is no box"


def four(value: Any) -> Numbers | None:
    """The four numbers of a list of four, of two points, or of either written as text; else None."""
    if isinstance(value, str):
        value = value.strip().strip("[]()").split(",")
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, list) and len(one) == 2 for one in value):
        value = [*value[0], *value[1]]
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(one) for one in value]
    return None if any(number is None for number in numbers) else tuple(numbers)  # type: ignore[return-value]


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value if isinstance(value, float) else None


def _boxes(item: dict[str, Any]) -> list[Any] | None:
    """What an object gives as its boxes, good or not; None where it gives none."""
    for key in BOX_KEYS:
        if key in item:
            value = item[key]
            several = isinstance(value, list) and value and all(isinstance(one, list | dict) for one in value)
            if not several or four(value) is not None:
                return [value]
            return None if any(isinstance(one, dict) for one in value) else list(value)
    for names in CORNERS:
        if all(name in item for name in names):
            return [[item[name] for name in names]]
    return next(([value] for value in item.values() if isinstance(value, list) and four(value) is not None), None)


def _label(item: dict[str, Any]) -> str:
    lowered = {key.lower(): value for key, value in item.items()}
    value = next((lowered[key] for key in LABEL_KEYS if isinstance(lowered.get(key), str)), "")
    return text_of(value)


def text_of(value: str) -> str:
    """Text with the halves of pairs that stand alone replaced: they are no text."""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _short(value: Any) -> str:
    return repr(value)[:60] if not isinstance(value, list) else repr(value[:6])[:60]
