"""RefCOCO, RefCOCO+, RefCOCOg: a list of refs beside COCO's instances.json. One sentence makes one row.

The embedded world is written in this form. Left out on purpose: the list as a pickle.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from vlmr1.boxes import from_xywh
from vlmr1.rows import Row
from vlmr1.settings.sources import RefCoco


def read_rows(spec: RefCoco, root: Path) -> Iterator[Row]:
    """Rows of one split of the list of refs, boxes from the instances.json beside it (xywh to corners)."""
    path = root / spec.annotations
    folder = path.parent
    for file in (path, folder / "instances.json"):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: not found; a refcoco source needs a list of refs and instances.json")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            instances = COCO(str(folder / "instances.json"))
        refs = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{folder}: refs.json or instances.json is not what COCO and RefCOCO hold: {error}") from error
    if not isinstance(refs, list):
        raise ValueError(f"{path}: a list of refs is needed, not a {type(refs).__name__}")
    rows: list[Row] = []
    splits = set()
    for number, ref in enumerate(refs):
        try:
            splits.add(ref["split"])
            if ref["split"] == spec.split:
                rows += _rows(ref, instances, len(rows))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: item {number}: {what}; mend or remove it") from error
    if not rows:
        raise ValueError(f"{path}: no ref has split {spec.split!r}; it has {', '.join(sorted(map(str, splits)))}")
    yield from rows


def _rows(ref: dict[str, Any], instances: COCO, first: int) -> list[Row]:
    """One row a sentence of a ref."""
    picture, annotation = instances.imgs[ref["image_id"]], instances.anns[ref["ann_id"]]
    size, box = (int(picture["width"]), int(picture["height"])), from_xywh(annotation["bbox"])
    said = [str(sentence["sent"]) for sentence in ref["sentences"]]
    image = str(ref["file_name"])
    return [Row(first + i, (image,), (size,), "rec", "iou", text, (box,)) for i, text in enumerate(said)]
