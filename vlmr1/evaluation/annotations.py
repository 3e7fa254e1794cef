"""True boxes as COCO's form has them: pictures, categories, and what stands on which picture, with ids and areas.

`vlmr1.sources` reads the same files to make questions; a scorer also needs what decides COCO's figures: the area an
annotation states (of its mask, often, not of its box), whether it is a crowd, and its id. Masks are dropped in reading.
Left out on purpose: pictures, which no scorer opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlmr1.sources.reading import At, load_json, numbers, shown, take, take_id

Id = int | str
Xywh = tuple[float, float, float, float]  # left, top, width, height in pixels of the picture


class Truth(NamedTuple):
    """One annotated box."""

    id: Id
    box: Xywh
    area: float  # square pixels as the annotation states them; its box's where it states none
    crowd: bool
    ignored: bool = False  # neither to be found nor a fault to find, as LVIS marks some


@dataclass(frozen=True)
class Truths:
    """A set: its pictures and categories in ascending order of their ids, its boxes by (picture, category)."""

    path: Path
    images: tuple[Id, ...]
    names: dict[Id, str]
    boxes: dict[tuple[Id, Id], list[Truth]]
    items: dict[Id, dict[str, Any]]  # a picture's fields as they stand, by its id
    categories: dict[Id, dict[str, Any]]  # a category's, by its id
    order: tuple[Id, ...]  # its pictures as the file lists them

    @property
    def starts_at_0(self) -> bool:
        """Whether an annotation has the id 0, which COCO's code takes for no match at all."""
        return any(truth.id == 0 for truths in self.boxes.values() for truth in truths)


def read_truths(path: Path, lvis: bool = False) -> Truths:
    """Read a COCO file, or LVIS's, which knows boxes to ignore where COCO knows crowds.

    Raises FileNotFoundError, or ValueError naming item, field and mend.
    """
    data = load_json(path, ("segmentation",), form="one JSON object of images, annotations and categories is needed")
    if isinstance(data, list):
        raise ValueError(f"{path}: an object of images, annotations and categories is needed, not a list")
    with At(path):
        lists = {key: take(data, key, list) for key in ("categories", "images", "annotations")}
    categories = _by_id(path, "category", lists["categories"])
    for number, item in enumerate(lists["categories"]):
        with At(path, "category", number):
            take(item, "name", str)
    images = _by_id(path, "image", lists["images"])
    if not images or not categories:
        raise ValueError(f"{path}: no {'categories' if images else 'images'} in it")
    boxes: dict[tuple[Id, Id], list[Truth]] = {}
    seen: set[Id] = set()
    for number, item in enumerate(lists["annotations"]):
        with At(path, "annotation", number):
            if take_id(item, "image_id") not in images:
                raise ValueError(f"image_id {shown(item['image_id'])} is none of its images")
            if take_id(item, "category_id") not in categories:
                raise ValueError(f"category_id {shown(item['category_id'])} is none of its categories")
            if take_id(item, "id") in seen:
                raise ValueError(f"id {shown(item['id'])} stands twice")
            seen.add(item["id"])
            boxes.setdefault((item["image_id"], item["category_id"]), []).append(_truth(item, lvis))
    names = {id_: categories[id_]["name"] for id_ in categories}
    order = tuple(item["id"] for item in lists["images"])
    return Truths(path, tuple(images), names, boxes, images, categories, order)


def _by_id(path: Path, what: str, items: list[Any]) -> dict[Id, dict[str, Any]]:
    """Items in ascending order of their ids, in which COCO's code lays pictures and categories out."""
    found: dict[Id, dict[str, Any]] = {}
    for number, item in enumerate(items):
        with At(path, what, number):
            if take_id(item, "id") in found:
                raise ValueError(f"id {shown(item['id'])} stands twice")
            found[item["id"]] = item
    if len({type(id_) for id_ in found}) > 1:
        raise ValueError(f"{path}: some {what} ids are numbers, some text; write them all alike")
    return {id_: found[id_] for id_ in sorted(found)}  # type: ignore[type-var]


def _truth(item: Mapping[str, Any], lvis: bool) -> Truth:
    x, y, w, h = numbers(item.get("bbox"), 4, "bbox")
    (area,) = numbers([item.get("area", w * h)], 1, "area")
    key = "ignore" if lvis else "iscrowd"
    passed = item.get(key, 0)
    if passed not in (0, 1):
        raise ValueError(f"{key} is {shown(passed)} where 0 or 1 is needed")
    return Truth(item["id"], (x, y, w, h), area, crowd=bool(passed) and not lvis, ignored=bool(passed) and lvis)
