"""LVIS: COCO's form over 1,203 categories, of which each picture was searched for a few only.

What was not searched for is neither present nor absent, so it is never asked for. Absent are a picture's
`neg_category_ids`, and `negatives` of them, or all, are asked for beside the present names. Names in
`not_exhaustive_category_ids` have only some of their objects boxed: they and their boxes are left out.
The picture is `file_name`, or as in version 1 the last two parts of `coco_url` (`val2017/000000000139.jpg`). Names are
asked for with spaces where LVIS has underscores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Lvis
from vlmr1.sources.instances import Id, detection_row, distinct, draw, generator, read_instances
from vlmr1.sources.reading import At, shown, take, take_ids


def read_rows(spec: Lvis, root: Path) -> Iterator[Row]:
    """One row a picture, in the list's order; boxes xywh to corners."""
    data = read_instances(root / spec.annotations)
    names = {id_: name.replace("_", " ") for id_, name in data.names.items()}
    for number, picture in enumerate(data.pictures):
        try:
            if number in data.faults:
                raise data.faults[number]
            with At(data.path, "image", number):
                partial = set(_ids(picture, "not_exhaustive_category_ids", names))
                absent = distinct(names[id_] for id_ in _ids(picture, "neg_category_ids", names))
                picture = _named(picture)
        except ValueError as error:
            yield unread(number, "ovd", spec.reward, error)
            continue
        things = [thing for thing in data.things[picture["id"]] if thing.category not in partial]
        found = [(names[thing.category], thing.box) for thing in things]
        present = distinct(name for name, _ in found)
        rng = generator(spec.seed, picture["id"])
        drawn = draw([name for name in absent if name not in present], spec.negatives, rng)
        row = detection_row(data.path, number, picture, found, present + drawn, spec.reward, rng)
        if row.asked or row.fault:
            yield row


def _ids(picture: dict[str, Any], key: str, names: dict[Id, str]) -> list[Id]:
    """A picture's list of category ids."""
    ids = take_ids(picture, key)
    for id_ in ids:
        if id_ not in names:
            raise ValueError(f"{key} holds {shown(id_)}, none of the categories")
    return ids


def _named(picture: dict[str, Any]) -> dict[str, Any]:
    """The picture with a file name."""
    if "file_name" in picture:
        return picture
    return picture | {"file_name": "/".join(take(picture, "coco_url", str).split("/")[-2:])}
