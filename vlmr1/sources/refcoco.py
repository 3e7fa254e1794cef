"""RefCOCO, RefCOCO+, RefCOCOg: a list of refs beside COCO's instances.json. One sentence makes one row.

The list is the published pickle (`refs(unc).p`, `refs(umd).p`, `refs(google).p`), read as data alone, or its twin in
JSON (`refs.json`), in which form the embedded world is written.
Left out on purpose: masks, and what pycocotools indexes beyond an annotation's box.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row, unread
from vlmr1.settings.sources import RefCoco
from vlmr1.sources.pickles import load_pickle
from vlmr1.sources.reading import At, load_json, shown, size_of, take, take_id, xywh

Table = dict[int | str, dict[str, Any]]


def read_rows(spec: RefCoco, root: Path) -> Iterator[Row]:
    """Rows of one split, in the list's order; boxes from instances.json (xywh to corners). `row` counts the split's.

    A malformed ref is one row; where its split is not to be read, of whichever split is asked for.
    """
    path = root / spec.annotations
    instances = path.parent / "instances.json"
    pictures, annotations = _tables(instances)
    refs = load_json(path, ("tokens",)) if path.suffix == ".json" else load_pickle(path, arrays=False)
    if not isinstance(refs, list):
        raise ValueError(f"{path}: a list of refs is needed, not {shown(refs)}")
    count, splits = 0, set()
    refs.reverse()  # so that each can be let go of once read
    for number in range(len(refs)):
        ref = refs.pop()
        try:
            with At(path, "item", number):
                split = take(ref, "split", str)
                splits.add(split)
                rows = _rows(ref, pictures, annotations, count) if split == spec.split else []
        except ValueError as error:
            rows = [unread(count, "rec", "iou", error)]
        count += len(rows)
        yield from rows
    if not count or spec.split not in splits:
        raise ValueError(f"{path}: no ref has split {spec.split!r}; it has {', '.join(sorted(splits)) or 'no refs'}")


def _tables(path: Path) -> tuple[Table, Table]:
    """Pictures and annotations of instances.json by id."""
    data = load_json(path, ("segmentation",))
    with At(path):
        pictures = {take_id(item, "id"): item for item in take(data, "images", list)}
    with At(path):
        annotations = {take_id(item, "id"): item for item in take(data, "annotations", list)}
    return pictures, annotations


def _rows(ref: dict[str, Any], pictures: Table, annotations: Table, first: int) -> list[Row]:
    """One row a sentence of a ref."""
    picture = pictures.get(take_id(ref, "image_id"))
    if picture is None:
        raise ValueError(f"image_id {shown(ref['image_id'])} is none of instances.json")
    annotation = annotations.get(take_id(ref, "ann_id"))
    if annotation is None:
        raise ValueError(f"ann_id {shown(ref['ann_id'])} is none of instances.json")
    if "bbox" not in annotation:
        raise ValueError(f"annotation {ref['ann_id']} of instances.json has no bbox")
    # The picture's own name: the published lists append the annotation's number to it in `file_name`.
    images, sizes = (take(picture, "file_name", str),), (size_of(picture),)
    boxes = (xywh(annotation["bbox"], f"bbox of annotation {ref['ann_id']} in instances.json"),)
    said = [take(sentence, "sent", str) for sentence in take(ref, "sentences", list)]
    return [Row(first + i, images, sizes, "rec", "iou", text, boxes) for i, text in enumerate(said)]
