"""REC: pictures of coloured shapes, and an expression about each.

rec/refs.json       RefCOCO's list: ref_id, ann_id, image_id, category_id, split, file_name, sent_ids, sentences
rec/instances.json  COCO: images, annotations (bbox xywh, area, iscrowd), categories
rec/SPLIT.json      the original project's evaluation JSON, for a split that draws `no_target`: RefCOCO's list ties
                    every ref to an annotation and cannot say that there is none; `solution` is null there
rec/images/SPLIT/…  PNG
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from PIL import Image

from vlmr1.files import write_json
from vlmr1.settings import RecSplit, RecWorld
from vlmr1.world.draw import TIRED, Seen, Told, no_new_picture
from vlmr1.world.expressions import describe, describe_nothing
from vlmr1.world.scenes import SHAPES, SIDE, Layout, Thing, compose, draw


def lists(settings: RecWorld) -> dict[tuple[str, str | None], int]:
    """(list, split where a list holds several) of every split, and its rows."""
    return {
        (f"{name}.json", None) if _untied(split) else ("refs.json", name): split.pictures
        for name, split in settings.splits.items()
    }


def write_rec(settings: RecWorld, seed: int, folder: Path, seen: Seen, told: Told) -> None:
    """Draw every split below `folder`, no picture that was `seen`.

    Raises ValueError where a split's layout cannot give enough different ones.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    for split, wanted in settings.splits.items():
        rng = random.Random(f"{seed}/{split}")
        (folder / "images" / split).mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        for number in range(wanted.pictures):
            things, target, text, picture = _example(rng, split, wanted, seen)
            file_name = f"{split}/{number:05d}.png"
            picture.save(folder / "images" / file_name)
            told(1)
            if _untied(wanted):
                rows.append(_row(number, file_name, target, text))
                continue
            image_id = len(images) + 1
            images.append({"id": image_id, "file_name": file_name, "width": SIDE, "height": SIDE})
            for thing in things:
                annotations.append(_annotation(len(annotations) + 1, image_id, thing))
                if thing is target:
                    refs.append(_ref(len(refs) + 1, annotations[-1], split, file_name, text))
        if rows:
            write_json(folder / f"{split}.json", rows)
    categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
    write_json(folder / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    write_json(folder / "refs.json", refs)


def _untied(split: RecSplit) -> bool:
    """Whether some expressions of the split have no target."""
    return "no_target" in split.expressions


def _example(
    rng: random.Random, split: str, wanted: RecSplit, seen: Seen
) -> tuple[list[Thing], Thing | None, str, Image.Image]:
    """A new scene, its target and an expression that holds for it alone, or None and one that holds for none; drawn."""
    layout = Layout(wanted.objects, wanted.colours, wanted.sides, wanted.grid)
    for _ in range(TIRED):
        things = compose(rng, layout, wanted.distinct)
        if things is None:
            continue
        target, kind = rng.choice(things), rng.choice(wanted.expressions)
        if kind == "no_target":
            text, meant = describe_nothing(rng, things, wanted.colours), None
        else:
            text, meant = describe(rng, target, things, kind), target
        if text is not None and seen.new(picture := draw(things)):
            return things, meant, text, picture
    raise no_new_picture("rec", split, "fewer pictures, a finer grid, more colours or more objects")


def _row(number: int, file_name: str, target: Thing | None, text: str) -> dict[str, Any]:
    """A row of the original project's evaluation JSON."""
    box = None if target is None else list(target.box)
    return {
        "id": number,
        "image": file_name,
        "width": SIDE,
        "height": SIDE,
        "normal_caption": text,
        "solution": box,
        "normalized_solution": box and [1000 * v // SIDE for v in box],
    }


def _annotation(annotation_id: int, image_id: int, thing: Thing) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": SHAPES.index(thing.shape) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }


def _ref(ref_id: int, annotation: dict[str, Any], split: str, file_name: str, text: str) -> dict[str, Any]:
    sentence = {"sent_id": ref_id, "sent": text, "raw": text, "tokens": text.split()}
    return {
        "ref_id": ref_id,
        "ann_id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "split": split,
        "file_name": file_name,
        "sent_ids": [ref_id],
        "sentences": [sentence],
    }
