"""RefCOCO, RefCOCO+, RefCOCOg: a list of refs beside COCO's instances.json. One sentence makes one row.

The embedded world is written in this form. Left out on purpose: the list as a pickle.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from pycocotools.coco import COCO

from vlmr1.boxes import from_xywh
from vlmr1.settings import SourceSpec
from vlmr1.sources import Row


def read_rows(spec: SourceSpec, root: Path) -> list[Row]:
    """Rows of one split of `annotations`/refs.json, boxes from `annotations`/instances.json (xywh to corners)."""
    folder = root / spec.annotations
    for name in ("refs.json", "instances.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: not found; a refcoco source needs refs.json and instances.json")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        instances = COCO(str(folder / "instances.json"))
    refs = json.loads((folder / "refs.json").read_text(encoding="utf-8"))
    rows: list[Row] = []
    for ref in refs:
        if ref["split"] != spec.split:
            continue
        image = instances.imgs.get(ref["image_id"])
        annotation = instances.anns.get(ref["ann_id"])
        if image is None or annotation is None:
            raise ValueError(
                f"{folder}/refs.json: ref_id {ref['ref_id']}: its image_id or ann_id is not in instances.json"
            )
        for sentence in ref["sentences"]:
            size = (image["width"], image["height"])
            rows.append(Row(len(rows), ref["file_name"], size, sentence["sent"], from_xywh(annotation["bbox"])))
    if not rows:
        found = sorted({ref["split"] for ref in refs})
        raise ValueError(f"{folder}/refs.json: no ref has split {spec.split!r}; it has {', '.join(found)}")
    return rows
