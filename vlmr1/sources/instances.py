"""COCO's instances form, and the making of a detection row: shared by the detection sets.

Annotations become compact tuples as they are checked; masks are never kept. Names that stand twice count once. A
picture for which no name is asked, present or absent, makes no row: there is no question in it. A malformed picture,
or one with a malformed annotation, is a row with its fault; what belongs to no picture is an error of the file.
Left out on purpose: pycocotools' index, which would hold every mask.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmr1.boxes import Box
from vlmr1.rows import Row, unread
from vlmr1.sources.reading import At, load_json, shown, size_of, take, take_id, xywh

Id = int | str


@dataclass(frozen=True, slots=True)
class Thing:
    """One annotation: a category's id, its box in corners, and whether it is a region full of them."""

    category: Id
    box: Box
    crowd: bool


@dataclass(frozen=True)
class Instances:
    """A set: names by category id, pictures as the list has them, annotations by picture id in the list's order.

    `faults` has by a picture's place what is wrong with it or with an annotation of it: such a one is not to be read.
    """

    path: Path
    names: dict[Id, str]
    pictures: list[dict[str, Any]]
    things: dict[Id, list[Thing]]
    faults: dict[int, ValueError]


def read_instances(path: Path) -> Instances:
    """Read a COCO file. Raises FileNotFoundError, or ValueError where the file is no such set."""
    data = load_json(path, ("segmentation",))
    with At(path):
        lists = {key: take(data, key, list) for key in ("categories", "images", "annotations")}
    names: dict[Id, str] = {}
    for number, item in enumerate(lists["categories"]):
        with At(path, "category", number):
            if take_id(item, "id") in names:
                raise ValueError(f"id {shown(item['id'])} stands twice")
            names[item["id"]] = take(item, "name", str)
    things: dict[Id, list[Thing]] = {}
    places: dict[Id, int] = {}
    faults: dict[int, ValueError] = {}
    for number, item in enumerate(lists["images"]):
        first = number
        try:
            with At(path, "image", number):
                first = places.setdefault(take_id(item, "id"), number)
                things.setdefault(item["id"], [])
                if first != number:
                    raise ValueError(f"id {shown(item['id'])} stands twice")
        except ValueError as error:
            faults[number] = error
            faults.setdefault(first, error)  # of two pictures with one id nobody knows whose the annotations are
    for number, item in enumerate(lists["annotations"]):
        with At(path, "annotation", number):
            if take_id(item, "image_id") not in places:
                raise ValueError(f"image_id {shown(item['image_id'])} is none of its images")
        try:
            with At(path, "annotation", number):
                things[item["image_id"]].append(_thing(item, names))
        except ValueError as error:
            faults.setdefault(places[item["image_id"]], error)
    if not lists["images"]:
        raise ValueError(f"{path}: no images in it")
    return Instances(path, _classes(names, lists["categories"], things), lists["images"], things, faults)


def _thing(item: dict[str, Any], names: dict[Id, str]) -> Thing:
    if take_id(item, "category_id") not in names:
        raise ValueError(f"category_id {shown(item['category_id'])} is none of its categories")
    return Thing(item["category_id"], xywh(item.get("bbox"), "bbox"), item.get("iscrowd") == 1)


def _classes(names: dict[Id, str], categories: list[dict[str, Any]], things: dict[Id, list[Thing]]) -> dict[Id, str]:
    """The names without those that only group others, which ODinW's exports list as a class of its own."""
    used = {thing.category for of_picture in things.values() for thing in of_picture}
    groups = [item.get("supercategory") for item in categories if item.get("supercategory") != item["name"]]
    return {id_: name for id_, name in names.items() if id_ in used or name not in groups}


def distinct(names: Iterable[str]) -> list[str]:
    """The names without repeats, in the order of first appearance."""
    return list(dict.fromkeys(names))


def draw(names: Sequence[str], count: int | str, rng: random.Random) -> list[str]:
    """So many of the names, or all of them; all where there are not so many."""
    return list(names) if count == "all" else rng.sample(names, min(int(count), len(names)))


def generator(seed: int, picture: Id) -> random.Random:
    """What a picture's drawings come from: its own, so that no row depends on its neighbours."""
    return random.Random(f"{seed}/{picture}")


def detection_row(
    path: Path,
    number: int,
    picture: dict[str, Any],
    found: Sequence[tuple[str, Box]],
    asked: list[str],
    reward: str,
    rng: random.Random,
) -> Row:
    """The row of a picture: what was `found` on it by name, and the names asked for, shuffled.

    One with a fault where the picture's file name or size is malformed.
    """
    rng.shuffle(asked)
    try:
        with At(path, "image", number):
            size = (size_of(picture),) if "width" in picture or "height" in picture else ()
            images = (take(picture, "file_name", str),)
    except ValueError as error:
        return unread(number, "ovd", reward, error)
    return Row(
        number,
        images,
        size,
        "ovd",
        reward,
        boxes=tuple(box for _, box in found),
        labels=tuple(name for name, _ in found),
        asked=tuple(asked),
    )
