"""Boxes out of completions: what a language model said about pictures, as the detections that box benchmarks score.

The evaluate stage's rows name a picture by its place in the annotations' list and hold the model's own words. They are
read by the one parser that training reads them with; labels are the categories' names, as the sources ask for them.
Every box has score 1 and counts in the order said. A label that is no category's cannot be scored, and is counted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from vlmr1.answers import read
from vlmr1.boxes import rescale
from vlmr1.evaluation.annotations import Id, Truths
from vlmr1.evaluation.asked import Asked
from vlmr1.evaluation.predictions import Detection, read_completions
from vlmr1.sources.reading import At, size_of


def read_said(path: Path, truths: Truths) -> tuple[list[Detection], set[Id], int]:
    """The boxes said, the pictures that were asked about, and how many boxes bear no category's name.

    A row is {"index", "completion"} with "input_size" [height, width] where the model saw the picture at another size.
    Raises FileNotFoundError, or ValueError naming file, row and mend.
    """
    places: dict[str, int | None] = {str(place): place for place in range(len(truths.order))}
    asked = [Asked(None, (str(_name(truths, id_)),), None) for id_ in truths.order]
    numbers: dict[str, Id] = {}
    for id_, name in truths.names.items():
        numbers.setdefault(plain(name), id_)
    found: list[Detection] = []
    unknown = 0
    completions = read_completions(path, {"index": places}, asked)
    for place, one in sorted(completions.items()):
        id_ = truths.order[place]
        with At(truths.path, "image", place):
            size = size_of(truths.items[id_])
        said = read(one.text)
        for box, label in said.found if said.text is not None else ():
            category = None if label is None else numbers.get(plain(label))
            if category is None:
                unknown += 1
                continue
            x0, y0, x1, y1 = box if one.input_size is None else rescale(box, one.input_size, size)
            found.append(Detection(id_, category, (x0, y0, x1 - x0, y1 - y0), 1.0))
    return found, {truths.order[place] for place in completions}, unknown


def only(truths: Truths, images: Collection[Id]) -> Truths:
    """The truths of these pictures alone."""
    return replace(
        truths,
        images=tuple(id_ for id_ in truths.images if id_ in images),
        order=tuple(id_ for id_ in truths.order if id_ in images),
        boxes={pair: true for pair, true in truths.boxes.items() if pair[0] in images},
        items={id_: item for id_, item in truths.items.items() if id_ in images},
    )


def plain(name: str) -> str:
    """A category's name as it is asked for: LVIS writes underscores where words end."""
    return name.replace("_", " ")


def _name(truths: Truths, id_: Id) -> object:
    item = truths.items[id_]
    return item.get("file_name", item.get("coco_url", ""))
