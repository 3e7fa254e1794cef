"""OVDEval: COCO's form with phrases as category names, and `text` (there) and `neg_text` (hard negatives) by picture.

`asked: listed` asks for the picture's `text` and `neg_text`, as the official evaluation does for colour, material,
position, relationship and negation; `asked: all` for every category, as it does for celebrity, logo, landmark and
object. Ids start at 0 there, which is an id like any other here.
Boxes of a name the picture does not list keep it: validation sees that it is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmr1.rows import Row, unread
from vlmr1.settings.sources import OvdEval
from vlmr1.sources.instances import detection_row, distinct, generator, read_instances
from vlmr1.sources.reading import At, take_texts


def read_rows(spec: OvdEval, root: Path) -> Iterator[Row]:
    """One row a picture, in the list's order; boxes xywh to corners."""
    data = read_instances(root / spec.annotations)
    every, listed = distinct(data.names.values()), spec.asked == "listed"
    for number, picture in enumerate(data.pictures):
        try:
            if number in data.faults:
                raise data.faults[number]
            with At(data.path, "image", number):
                asked = distinct(take_texts(picture, "text") + take_texts(picture, "neg_text")) if listed else [*every]
        except ValueError as error:
            yield unread(number, "ovd", spec.reward, error)
            continue
        found = [(data.names[thing.category], thing.box) for thing in data.things[picture["id"]]]
        rng = generator(spec.seed, picture["id"])
        row = detection_row(data.path, number, picture, found, asked, spec.reward, rng)
        if row.asked or row.fault:
            yield row
