"""D³ (d-cube): 422 descriptions, each searched for on every picture, in groups of one scenario.

`annotations` is the folder of the published pickles (sentences, annotations, images and groups, read as data alone),
or the published COCO JSON, whose category ids are the sentences'.
`sentences`: all (`full`), those that say what is there (`pres`), or those that also say what is not (`abs`), which the
list marks `is_negative`. A JSON without such marks, of which three are published, is one of the three already: take the
one wanted with `sentences: full`.
`asked`: the sentences of the picture's group (`intra`), all (`inter`), or the present ones beside a few that are drawn
from the other groups' and absent (`train`). The JSON knows no groups: it cannot be asked `intra`, and draws from all.
An annotation in several parts has a box a part in the pickles; the box around them is the object's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmr1.boxes import Box
from vlmr1.rows import Row, unread
from vlmr1.settings.sources import D3
from vlmr1.sources.instances import Id, detection_row, distinct, generator, read_instances
from vlmr1.sources.pickles import load_pickle
from vlmr1.sources.reading import At, load_json, shown, take, take_id, take_ids, xywh


@dataclass(frozen=True)
class Described:
    """The set: descriptions by id, pictures, what each picture holds, and each picture's group of descriptions."""

    path: Path
    sentences: dict[Id, str]
    pictures: list[dict[str, Any]]
    found: dict[Id, list[tuple[Id, Box]]]  # by picture: sentence, box
    groups: dict[Id, list[Id]] | None  # by picture: the sentences of its group; None where nothing says
    faults: dict[int, ValueError]  # by a picture's place: what is wrong with it or an annotation of it


def read_rows(spec: D3, root: Path) -> Iterator[Row]:
    """One row a picture, in the set's order; boxes xywh to corners."""
    path = root / spec.annotations
    data = _from_json(path, spec.sentences) if path.suffix == ".json" else _from_pickles(path, spec.sentences)
    if data.groups is None and spec.asked == "intra":
        raise ValueError(f"{path}: asked: intra needs groups.pkl; give the folder of the pickles, or ask otherwise")
    for number, picture in enumerate(data.pictures):
        if number in data.faults:
            yield unread(number, "ovd", spec.reward, data.faults[number])
            continue
        id_ = picture["id"]
        found = [(data.sentences[sentence], box) for sentence, box in data.found[id_]]
        present = distinct(name for name, _ in found)
        own = data.groups[id_] if data.groups is not None else []
        rng = generator(spec.seed, id_)
        if spec.asked == "intra":
            asked = distinct(data.sentences[s] for s in own if s in data.sentences)
            found = [(name, box) for name, box in found if name in asked]
        elif spec.negatives is None:
            asked = distinct(data.sentences.values())
        else:
            kept_out = {*present, *(data.sentences[s] for s in own if s in data.sentences)}
            others = [name for name in distinct(data.sentences.values()) if name not in kept_out]
            asked = present + rng.sample(others, min(rng.randint(*spec.negatives), len(others)))
        row = detection_row(data.path, number, picture, found, asked, spec.reward, rng)
        if row.asked or row.fault:
            yield row


def _from_json(path: Path, wanted: str) -> Described:
    data = read_instances(path)
    sentences = data.names
    if wanted != "full":
        negative = {}
        for number, item in enumerate(load_json(path, ("segmentation",))["categories"]):
            with At(path, "category", number):
                negative[item["id"]] = take(item, "is_negative", bool)
        sentences = {id_: name for id_, name in sentences.items() if negative[id_] == (wanted == "abs")}
    found = {
        id_: [(thing.category, thing.box) for thing in things if thing.category in sentences]
        for id_, things in data.things.items()
    }
    return Described(path, sentences, data.pictures, found, None, data.faults)


def _from_pickles(folder: Path, wanted: str) -> Described:
    tables = {name: _table(folder / f"{name}.pkl") for name in ("sentences", "annotations", "images", "groups")}
    sentences = {}
    for id_, item in tables["sentences"].items():
        with At(folder / "sentences.pkl", "sentence", id_):
            if wanted == "full" or take(item, "is_negative", bool) == (wanted == "abs"):
                sentences[id_] = take(item, "raw_sent", str)
    pictures, groups = [], {}
    faults: dict[int, ValueError] = {}
    for number, (id_, item) in enumerate(tables["images"].items()):
        pictures.append({"id": id_})
        try:
            with At(folder / "images.pkl", "image", id_):
                group = tables["groups"].get(take_id(item, "group_id"))
                if group is None:
                    raise ValueError(f"group_id {shown(item['group_id'])} is none of groups.pkl")
                groups[id_] = take_ids(group, "inner_sent_id")
                pictures[-1] = item | {"id": id_}
        except ValueError as error:
            faults[number] = error
    places = {id_: number for number, id_ in enumerate(tables["images"])}
    found: dict[Id, list[tuple[Id, Box]]] = {id_: [] for id_ in places}
    for id_, item in tables["annotations"].items():
        with At(folder / "annotations.pkl", "annotation", id_):
            if take_id(item, "image_id") not in places:
                raise ValueError(f"image_id {shown(item['image_id'])} is none of images.pkl")
        try:
            with At(folder / "annotations.pkl", "annotation", id_):
                box = _hull(take(item, "bbox", list))
                told = take_ids(item, "sent_id")
                found[item["image_id"]] += [(sentence, box) for sentence in told if sentence in sentences]
        except ValueError as error:
            faults.setdefault(places[item["image_id"]], error)
    return Described(folder, sentences, pictures, found, groups, faults)


def _table(path: Path) -> dict[Id, Any]:
    """One of the four pickles: records by id."""
    table = load_pickle(path, arrays=True)
    if not isinstance(table, dict) or not table or not all(isinstance(key, int | str) for key in table):
        raise ValueError(f"{path}: records by id are needed, not {shown(table)}")
    return table


def _hull(bbox: list[Any]) -> Box:
    """The box around [x, y, w, h] or around a list of such, one a part."""
    parts = [xywh(part, "bbox") for part in (bbox if bbox and isinstance(bbox[0], list) else [bbox])]
    x0, y0, x1, y1 = zip(*parts, strict=True)
    return (min(x0), min(y0), max(x1), max(y1))
