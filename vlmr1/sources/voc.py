"""Pascal VOC: a folder of XML files, one a picture, in the order of their names.

Pascal counts pixels from 1 and includes the last (`corners: pascal`): xmin 1, xmax W is the whole width, so a box is
(xmin - 1, ymin - 1, xmax, ymax). Tools that write plain coordinates into the same form need `corners: plain`.
The names of the set are those of all its files; `negatives` of the absent ones, or all, are asked for beside the
present. Objects marked difficult, truncated or occluded are objects; parts of objects are not.
A malformed file is a row with its fault. A document type is refused, whatever it declares: entities that grow without
end are declared there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from vlmr1.boxes import Box
from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Voc
from vlmr1.sources.instances import detection_row, distinct, draw, generator
from vlmr1.sources.reading import NOT_FOUND, At, corners, shown

EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_rows(spec: Voc, root: Path) -> Iterator[Row]:
    """One row a file; `filename` inside it names the picture."""
    folder = root / spec.annotations
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: {NOT_FOUND}")
    files: list[tuple[dict[str, Any], list[tuple[str, Box]]]] = []
    faults: dict[int, ValueError] = {}
    for number, path in enumerate(sorted(folder.glob("*.xml"))):
        try:
            with At(path):
                files.append(_read(path, spec.corners == "pascal"))
        except ValueError as error:
            faults[number] = error
            files.append(({}, []))
    if not files:
        raise ValueError(f"{folder}: no XML files in it")
    every = distinct(name for _, found in files for name, _ in found)
    for number, (picture, found) in enumerate(files):
        if number in faults:
            yield unread(number, "ovd", spec.reward, faults[number])
            continue
        present = distinct(name for name, _ in found)
        rng = generator(spec.seed, picture["file_name"])
        drawn = draw([name for name in every if name not in present], spec.negatives, rng)
        row = detection_row(folder, number, picture, found, present + drawn, spec.reward, rng)
        if row.asked or row.fault:
            yield row


def _read(path: Path, pascal: bool) -> tuple[dict[str, Any], list[tuple[str, Box]]]:
    """The picture of a file in COCO's words, and what it holds: names and boxes."""
    top = _parse(path.read_bytes())
    picture: dict[str, Any] = {"file_name": _text(top, "filename")}
    if top.find("size") is not None:
        picture |= {key: _number(top, f"size/{key}", int) for key in ("width", "height")}
    found = []
    for thing in top.findall("object"):
        x0, y0, x1, y1 = corners([_number(thing, f"bndbox/{key}", float) for key in EDGES], "bndbox")
        found.append((_text(thing, "name"), (x0 - 1, y0 - 1, x1, y1) if pascal else (x0, y0, x1, y1)))
    return picture, found


def _parse(data: bytes) -> Element:
    """The tree of an XML text without a document type. Raises ValueError."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"not XML ({error})") from error
    return builder.close()


def _refuse(*_: Any) -> None:
    raise ValueError("it declares a document type, which is not read")


def _text(item: Element, path: str) -> str:
    found = item.findtext(path)
    if not found or not found.strip():
        raise ValueError(f"no {path}")
    return found.strip()


def _number(item: Element, path: str, kind: type) -> Any:
    text = _text(item, path)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{path} is {shown(text)} where a number is needed") from error
