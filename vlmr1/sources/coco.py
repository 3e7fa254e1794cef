"""COCO instances, and ODinW's sets in that form (`_annotations.coco.json`). One row a picture, in the list's order.

`keep` chooses as VLM-R1's evaluation sets do (definitions of their names, its blog and paper):
    all       every picture, every box
    filtered  without any picture's categories of more than 10 boxes there (COCO-filtered)
    pos_2     pictures with objects, exactly one box of every category present
    pos_3     pictures with objects, at most 10 boxes in all
`negatives` absent names are asked for beside the present ones. With `all` every category of the set is asked for,
as those evaluations do: also one that `filtered` or `crowd: drop` took from the picture, though it is there; a number
of negatives is drawn from names with no annotation at all on the picture.
`row` is the picture's place in the list, whatever is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Coco
from vlmr1.sources.instances import Thing, detection_row, distinct, draw, generator, read_instances

MOST = 10  # boxes, of a category in COCO-filtered, of a picture in pos_3


def read_rows(spec: Coco, root: Path) -> Iterator[Row]:
    """Rows of the pictures kept; boxes xywh to corners. A picture with nothing on it has none."""
    data = read_instances(root / spec.annotations)
    every, rows = distinct(data.names.values()), 0
    for number, picture in enumerate(data.pictures):
        if number in data.faults:
            rows += 1
            yield unread(number, "ovd", spec.reward, data.faults[number])
            continue
        all_things = data.things[picture["id"]]
        things = [thing for thing in all_things if spec.crowd == "keep" or not thing.crowd]
        kept = _kept(things, spec.keep)
        if kept is None:
            continue
        rng = generator(spec.seed, picture["id"])
        annotated = {data.names[thing.category] for thing in all_things}
        found = [(data.names[thing.category], thing.box) for thing in kept]
        present = distinct(name for name, _ in found)
        if spec.negatives == "all":
            asked = list(every)
        else:
            asked = present + draw([name for name in every if name not in annotated], spec.negatives, rng)
        row = detection_row(data.path, number, picture, found, asked, spec.reward, rng)
        if row.asked or row.fault:
            rows += 1
            yield row
    if not rows:
        raise ValueError(f"{data.path}: no picture has anything to ask for under keep: {spec.keep}")


def _kept(things: list[Thing], keep: str) -> list[Thing] | None:
    """The boxes of a picture that stay, or None where the picture does not."""
    counts = Counter(thing.category for thing in things)
    if keep == "filtered":
        return [thing for thing in things if counts[thing.category] <= MOST]
    if keep == "pos_2" and (not counts or max(counts.values()) > 1):
        return None
    if keep == "pos_3" and not 1 <= len(things) <= MOST:
        return None
    return things
