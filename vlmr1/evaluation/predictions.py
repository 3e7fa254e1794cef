"""Prediction files: a COCO results list of boxes, or JSON Lines of completions. A malformed row is refused.

Left out on purpose: guessing. A row that names a picture, a category or a question that the annotations do not have is
refused, for then the two files hardly belong together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlmr1.evaluation.annotations import Id, Truths, Xywh
from vlmr1.evaluation.asked import Asked
from vlmr1.sources.reading import At, json_lines, load_json, no_misspelt, numbers, shown, take, take_id

By = tuple[Id, Id]  # picture, category
SLACK, DOUBTFUL = 2, 0.05  # pixels beyond its picture that a box may reach, and the share of boxes that reach further
OPTIONAL = ("input_size",)
PASSED = ("index", "id", "completion", "size")  # a size is the picture's, in rows of the evaluate stage
FORM = "one JSON array of {image_id, category_id, bbox, score} is needed"


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
    rows = load_json(path, form=FORM)
    if isinstance(rows, dict) and {"images", "annotations"} & rows.keys():
        raise ValueError(f"{path}: annotations where predictions are needed: is it swapped with --annotations?")
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {FORM}, as COCO's results are, not {shown(rows)}")
    images, found = set(truths.images), []
    for number, row in enumerate(rows):
        with At(path, "row", number):
            if take_id(row, "image_id") not in images:
                raise ValueError(_unknown("image_id", row["image_id"], truths.images, f"{truths.path}'s images"))
            if take_id(row, "category_id") not in truths.names:
                raise ValueError(
                    _unknown("category_id", row["category_id"], truths.names, f"{truths.path}'s categories")
                )
            x, y, w, h = numbers(row.get("bbox"), 4, "bbox")
            if not all(map(math.isfinite, (x, y, w, h))) or w < 0 or h < 0:
                raise ValueError(f"bbox {shown(row['bbox'])} is no [x, y, width, height] of finite numbers, sides ≥ 0")
            (score,) = numbers([row.get("score")], 1, "score")
            if not math.isfinite(score):
                raise ValueError(f"score {score} is no finite number")
            found.append(Detection(row["image_id"], row["category_id"], (x, y, w, h), score))
    return found


def _unknown(key: str, id_: Id, known: Collection[Id], whose: str) -> str:
    """What is said of an id that is not there: the same one of the other type, or what there is."""
    said = f"{key} {shown(id_)} is none of {whose}"
    if isinstance(id_, str) and id_.lstrip("-").isdecimal() and int(id_) in known:
        return f"{said}; write {int(id_)} without quotes"
    if isinstance(id_, int) and str(id_) in known:
        return f'{said}; write "{id_}" in quotes'
    return f"{said}, which are {_range(known)}"


def _range(known: Collection[Id]) -> str:
    """The least and the greatest of some ids, numbers by their size also where they are written as text."""
    plain = [int(one) if str(one).isdecimal() else one for one in known]
    numeric = all(isinstance(one, int) for one in plain)
    low, *_, high = sorted(plain if numeric else map(str, plain)) * 2  # type: ignore[type-var]
    return f"{shown(low)} to {shown(high)}"


def outside(truths: Truths, detections: Collection[Detection], head: str = "") -> str | None:
    """What is doubtful about predicted boxes as a whole: a good part of them leave their pictures, or none reaches
    beyond the first pixel; None where nothing is."""
    if detections and all(max(one.box) <= 1 for one in detections):
        return f"{head}all {len(detections)} boxes lie within one pixel: are they [x, y, width, height] in pixels?"
    left = 0
    for one in detections:
        width, height = (truths.items[one.image].get(side, math.inf) for side in ("width", "height"))
        x, y, w, h = one.box
        left += x < -SLACK or y < -SLACK or x + w > width + SLACK or y + h > height + SLACK
    if left <= DOUBTFUL * len(detections):
        return None
    return f"{head}{left} of {len(detections)} boxes leave their picture: are they [x, y, width, height] in pixels?"


def by_pair(detections: Collection[Detection]) -> dict[By, list[Detection]]:
    """Detections by (picture, category), each list in the file's order."""
    found: dict[By, list[Detection]] = {}
    for one in detections:
        found.setdefault((one.image, one.category), []).append(one)
    return found


def read_completions(
    path: Path, places: Mapping[str, Mapping[str, int | None]], asked: Sequence[Asked]
) -> dict[int, Completion]:
    """Completions by the 0-based place of the question.

    A row is {"completion", …} with one of the keys of `places`, which give a question's place by its name under that
    key, and may have "input_size" [height, width]. What it says of its question must be so of `asked`, at that place.
    Raises FileNotFoundError, or ValueError naming file, row and mend.
    """
    found: dict[int, Completion] = {}
    for number, row in json_lines(path):
        with At(path, "line", number):
            no_misspelt(row, OPTIONAL, PASSED)
            key = next((key for key in places if key in row), None)
            if key is None:
                raise ValueError(f"no {' or '.join(places)}, which names the question")
            name = _name(row[key])
            if name in places[key] and places[key][name] is None:
                raise ValueError(f"{key} {shown(row[key])} is that of several questions; name it by index")
            place = places[key].get(name)
            if place is None:
                like = _range(places[key]) if places[key] else "none: name it by index"
                raise ValueError(f"{key} {shown(row[key])} is no question of the annotations; they are {like}")
            if place in found and row.get("sample") not in (None, 0):
                raise ValueError(
                    f"{key} {shown(row[key])} has several samples, and a score takes one answer a question; keep the"
                    ' lines of "sample" 0 alone'
                )
            if place in found:
                raise ValueError(f"{key} {shown(row[key])} is answered twice")
            if key == "index":
                asked[place].check(row, f"index {place}")
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
