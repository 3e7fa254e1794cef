"""OVD: pictures of coloured shapes and a list of names to look for, in OVDEval's form.

    ovd/SPLIT.json      COCO, with `text` (names that are there) and `neg_text` (hard negatives) on each picture
    ovd/images/SPLIT/…  PNG

A category is a colour and a shape. A hard negative has the colour or the shape of something in the picture and is not
there. What is drawn and not asked for is not annotated, so the lists are to be read with `asked: listed`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from vlmr1.files import write_json
from vlmr1.settings import OvdSplit, OvdWorld
from vlmr1.world.draw import TIRED, Seen, Told, no_new_picture
from vlmr1.world.scenes import SIDE, Thing, draw, scatter


def lists(settings: OvdWorld) -> dict[tuple[str, str | None], int]:
    """The list of every split, and its rows: one a picture."""
    return {(f"{name}.json", None): split.pictures for name, split in settings.splits.items()}


def write_ovd(settings: OvdWorld, seed: int, folder: Path, seen: Seen, told: Told) -> None:
    """Draw every split below `folder`, no picture that was `seen`.

    Raises ValueError where a split's layout cannot give enough different ones.
    """
    for split, wanted in settings.splits.items():
        rng = random.Random(f"{seed}/ovd/{split}")
        (folder / "images" / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        categories = {name: number for number, name in enumerate(wanted.categories, start=1)}
        for number in range(wanted.pictures):
            things, present, absent = _example(rng, split, wanted, seen)
            image = {"id": number + 1, "file_name": f"{split}/{number:05d}.png", "width": SIDE, "height": SIDE}
            draw(things).save(folder / "images" / str(image["file_name"]))
            told(1)
            images.append(image | {"text": present, "neg_text": absent})
            for thing in things:
                if thing.name in present:
                    annotations.append(_annotation(len(annotations) + 1, number + 1, categories[thing.name], thing))
        named = [{"id": n, "name": name, "supercategory": "object"} for name, n in categories.items()]
        write_json(folder / f"{split}.json", {"images": images, "annotations": annotations, "categories": named})


def _example(rng: random.Random, split: str, wanted: OvdSplit, seen: Seen) -> tuple[list[Thing], list[str], list[str]]:
    """A new scene, the names asked for that are there, and those that are not."""
    empty = rng.random() < wanted.empty
    many = rng.randint(*wanted.objects)  # once: few objects find a place more easily than many
    for _ in range(TIRED):
        names = rng.choices(wanted.drawn, k=many)
        things = scatter(rng, names, wanted.sides, wanted.grid)
        near = hard_negatives(names, wanted.categories)
        there = sorted(set(names))
        rng.shuffle(there)
        present = there[: rng.randint(*wanted.asked)]
        least, most = wanted.negatives
        if empty:  # as many names as elsewhere, else their number would tell
            least, most, present = least + len(present), most + len(present), []
        if things is None or len(near) < least:
            continue
        absent = rng.sample(near, rng.randint(least, min(most, len(near))))
        if seen.new(draw(things)):
            return sorted(things, key=lambda thing: thing.box), present, absent  # left to right, an order to be learnt
    raise no_new_picture("ovd", split, "fewer pictures, a finer grid, more colours, fewer negatives or other objects")


def hard_negatives(names: list[str], categories: tuple[str, ...]) -> list[str]:
    """The categories that are not there and share the colour or the shape of something that is."""
    words = {word for name in names for word in name.split()}
    return [name for name in categories if name not in names and words & set(name.split())]


def _annotation(annotation_id: int, image_id: int, category_id: int, thing: Thing) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }
