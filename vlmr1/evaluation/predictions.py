"""Prediction files: a COCO results list of boxes, or JSON Lines of completions. A malformed row is refused.

Left out on purpose: guessing. A row that names a picture, a category or a question that the annotations do not have is
refused, for then the two files hardly belong together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vlmr1.evaluation.annotations import Id, Truths, Xywh
from vlmr1.sources.reading import At, json_lines, load_json, numbers, shown, take, take_id

By = tuple[Id, Id]  # picture, category


class Detection(NamedTuple):
    """One predicted box."""

    image: Id
    category: Id
    box: Xywh
    score: float


class Completion(NamedTuple):
    """What a model said to one question, and the (width, height) of the picture as it saw it, where the row says."""

    text: str
    input_size: tuple[int, int] | None


def read_detections(path: Path, truths: Truths) -> list[Detection]:
    """A COCO results list [{image_id, category_id, bbox [x, y, width, height], score}], in its order. May be empty.

    Raises FileNotFoundError, or ValueError naming file, row, field and mend.
    """
    rows = load_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: a list of predicted boxes is needed, as COCO's results, not {shown(rows)}")
    images, found = set(truths.images), []
    for number, row in enumerate(rows):
        with At(path, "row", number):
            if take_id(row, "image_id") not in images:
                raise ValueError(f"image_id {shown(row['image_id'])} is none of {truths.path}'s images")
            if take_id(row, "category_id") not in truths.names:
                raise ValueError(f"category_id {shown(row['category_id'])} is none of {truths.path}'s categories")
            x, y, w, h = numbers(row.get("bbox"), 4, "bbox")
            if not all(map(math.isfinite, (x, y, w, h))) or w < 0 or h < 0:
                raise ValueError(f"bbox {shown(row['bbox'])} is no [x, y, width, height] of finite numbers, sides ≥ 0")
            (score,) = numbers([row.get("score")], 1, "score")
            if not math.isfinite(score):
                raise ValueError(f"score {score} is no finite number")
            found.append(Detection(row["image_id"], row["category_id"], (x, y, w, h), score))
    return found


def by_pair(detections: Collection[Detection]) -> dict[By, list[Detection]]:
    """Detections by (picture, category), each list in the file's order."""
    found: dict[By, list[Detection]] = {}
    for one in detections:
        found.setdefault((one.image, one.category), []).append(one)
    return found


def read_completions(path: Path, places: Mapping[str, Mapping[str, int | None]]) -> dict[int, Completion]:
    """Completions by the 0-based place of the question. May be empty.

    A row is {"completion", …} with one of the keys of `places`, which give a question's place by its name under that
    key, and may have "input_size" [height, width]. Raises FileNotFoundError, or ValueError naming file, row and mend.
    """
    found: dict[int, Completion] = {}
    if path.is_file() and not path.stat().st_size:  # an empty file: nothing was answered
        return found
    for number, row in json_lines(path):
        with At(path, "line", number):
            key = next((key for key in places if key in row), None)
            if key is None:
                raise ValueError(f"no {' or '.join(places)}, which names the question")
            name = _name(row[key])
            if name in places[key] and places[key][name] is None:
                raise ValueError(f"{key} {shown(row[key])} is that of several questions; name it by index")
            place = places[key].get(name)
            if place is None:
                known = list(places[key])
                like = f"{known[0]!r} to {known[-1]!r}" if known else "none: name it by index"
                raise ValueError(f"{key} {shown(row[key])} is no question of the annotations; they are {like}")
            if place in found:
                raise ValueError(f"{key} {shown(row[key])} is answered twice")
            found[place] = Completion(take(row, "completion", str), _input_size(row))
    return found


def _name(value: Any) -> str:
    """Ids are compared as text, for files write the same id as a number here and as text there; "" for no id."""
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""


def _input_size(row: dict[str, Any]) -> tuple[int, int] | None:
    size = row.get("input_size")
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int and v > 0 for v in size)):
        raise ValueError(f"input_size: [height, width], two whole numbers above 0, is needed, not {shown(size)}")
    return size[1], size[0]


def places_of(names: Collection[Any]) -> dict[str, int | None]:
    """Place by name, as text; None for a name that several questions bear, which then must be named otherwise."""
    found: dict[str, int | None] = {}
    for place, name in enumerate(names):
        found[str(name)] = None if str(name) in found else place
    return found
