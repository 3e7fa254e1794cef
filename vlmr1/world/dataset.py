"""The embedded data set on disk, in public formats.

    instances.json    COCO: images, annotations (bbox xywh, area, iscrowd), categories
    refs.json         RefCOCO's list: ref_id, ann_id, image_id, category_id, split, file_name, sent_ids, sentences
    images/SPLIT/…    PNG

Same seed, same bytes. No picture stands twice, neither in a split nor across splits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmr1.files import write_json
from vlmr1.settings import World, WorldSplit
from vlmr1.world.expressions import describe
from vlmr1.world.scenes import COLOURS, SHAPES, SIDE, Layout, Thing, compose, draw

TIRED = 2000  # scenes tried for one picture before the layout is called impossible


def check_world(settings: World) -> None:
    """Refuse what cannot be drawn. Raises ValueError naming the key."""
    for name, split in settings.splits.items():
        unknown = sorted(set(split.colours) - set(COLOURS))
        if unknown:
            raise ValueError(f"params.yaml: world.splits.{name}.colours: {unknown[0]} is none of {', '.join(COLOURS)}")
        if split.sides[1] > SIDE:
            raise ValueError(f"params.yaml: world.splits.{name}.sides: pictures are {SIDE} pixels wide")


def write_world(settings: World, folder: Path, progress: Callable[[str, int], None]) -> dict[str, int]:
    """Draw every split below `folder`. Returns the number of pictures of each split.

    Raises ValueError when a split's layout cannot give as many different pictures as it asks for.
    """
    check_world(settings)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    seen: set[frozenset[Thing]] = set()
    for split, wanted in settings.splits.items():
        rng = random.Random(f"{settings.seed}/{split}")  # a split's pictures do not depend on the others'
        (folder / "images" / split).mkdir(parents=True)
        for number in range(wanted.pictures):
            things, target, text = _example(rng, split, wanted, seen)
            file_name = f"{split}/{number:05d}.png"
            draw(things).save(folder / "images" / file_name)
            image_id = len(images) + 1
            images.append({"id": image_id, "file_name": file_name, "width": SIDE, "height": SIDE})
            for thing in things:
                annotations.append(_annotation(len(annotations) + 1, image_id, thing))
                if thing is target:
                    refs.append(_ref(len(refs) + 1, annotations[-1], split, file_name, text))
            progress(split, 1)
    categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
    write_json(folder / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    write_json(folder / "refs.json", refs)
    return {split: wanted.pictures for split, wanted in settings.splits.items()}


def _example(
    rng: random.Random, split: str, wanted: WorldSplit, seen: set[frozenset[Thing]]
) -> tuple[list[Thing], Thing, str]:
    """A new scene, its target and an expression that holds for the target alone."""
    layout = Layout(wanted.objects, wanted.colours, wanted.sides, wanted.grid)
    for _ in range(TIRED):
        things = compose(rng, layout, wanted.distinct)
        if things is None:
            continue
        target, kind = rng.choice(things), rng.choice(wanted.expressions)
        text = describe(rng, target, things, kind)
        if text is not None and frozenset(things) not in seen:
            seen.add(frozenset(things))
            return things, target, text
    raise ValueError(
        f"params.yaml: world.splits.{split}: no new picture in {TIRED} tries;"
        " ask for fewer pictures, a finer grid, more colours or more objects"
    )


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
