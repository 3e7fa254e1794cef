"""Rows become samples: questions and truths as text, boxes in the pixels of the picture that training will open.

Left out on purpose: judging rows, which validation does; a row that cannot be converted at all is an error here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from vlmr1.boxes import Box, Size, rescale
from vlmr1.files import inside, sha256
from vlmr1.pictures import PictureFault, open_picture
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS

BOXED = ("rec", "ovd")  # tasks whose answers are boxes, which need a picture's size to be read


class Pictures:
    """The pictures of a source: where they lie, their sizes, and the copies that were asked for."""

    def __init__(self, folder: Path, copies: Path | None, max_pixels: int) -> None:
        """With `copies`, pictures are stored there, shrunk to `max_pixels`; else they stay where they are."""
        self.folder, self.copies, self.max_pixels = folder, copies, max_pixels
        # As it lies in the folder, as training will open it; None where that is unknown and nothing needs it.
        self.known: dict[str, tuple[Size, Size] | None] = {}
        self.paths: dict[str, Path] = {}  # as training will open it

    def sizes(self, row: Row) -> tuple[tuple[Size, Size], ...]:
        """Of each of a row's pictures; () where one is unknown, which is so only where no box needs it.

        Raises ValueError for a picture that leaves its folder, that must be opened and does not open, or that has
        another size than the row says.
        """
        found = []
        for place, name in enumerate(row.images):
            declared = row.sizes[place] if place < len(row.sizes) else None
            if name not in self.known or (self.known[name] is None and (declared or row.task in BOXED)):
                self.known[name] = self._look(row, name, declared)
            known = self.known[name]
            if declared is not None and known is not None and known[0] != declared:
                real, said = (f"{size[0]} x {size[1]}" for size in (known[0], declared))
                whence = "it is" if self.copies else "an earlier row says"
                raise ValueError(f"row {row.row}: picture {name} is said to be {said}, {whence} {real}; mend the size")
            found.append(known)
        return tuple(one for one in found if one is not None) if None not in found else ()

    def missing(self) -> list[str]:
        """The pictures seen that are not there."""
        return [name for name, path in self.paths.items() if not _there(path)]

    def _look(self, row: Row, name: str, declared: Size | None) -> tuple[Size, Size] | None:
        try:
            path = inside(self.folder, name)
        except ValueError as error:
            raise ValueError(f"row {row.row}: picture {error}") from error
        if self.copies is not None:
            return self._store(row, name, path, self.copies)
        self.paths[name] = path
        if declared is not None:
            return declared, declared
        if row.task not in BOXED and not _there(path):
            return None
        try:
            with open_picture(path) as picture:
                return picture.size, picture.size
        except PictureFault as fault:
            raise _unopened(row, name, fault) from fault

    def _store(self, row: Row, name: str, path: Path, copies: Path) -> tuple[Size, Size]:
        """Put a copy into the converted set, shrunk if it must be."""
        try:
            target = self.paths[name] = inside(copies, name)
            with open_picture(path) as picture:
                picture.load()  # what breaks off is found here, and not in training
                size, fit, form = picture.size, fitting(picture.size, self.max_pixels), picture.format
                shrunk = picture.convert("RGB").resize(fit, Image.Resampling.BICUBIC) if fit != size else None
        except PictureFault as fault:
            raise _unopened(row, name, fault) from fault
        except ValueError as error:
            raise ValueError(f"row {row.row}: picture {error}") from error
        whole = target.with_name(f".{target.name}.tmp")  # what is there may be a link to the original
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if shrunk is None:
                whole.write_bytes(path.read_bytes())
            else:
                shrunk.save(whole, format="JPEG" if form == "MPO" else form)
            whole.replace(target)
        except OSError as error:
            raise ValueError(f"row {row.row}: picture {name} cannot be stored as {target} ({error})") from error
        return size, fit

    def hashes(self) -> dict[str, str]:
        """sha256 of every picture seen, as training will open it; empty for one that is not there."""
        return {name: sha256(path) if _there(path) else "" for name, path in sorted(self.paths.items())}


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have, e.g. of 300 letters
        return False


def _unopened(row: Row, name: str, fault: PictureFault) -> ValueError:
    return ValueError(f"row {row.row}: picture {name} does not open ({fault}); mend or remove the row")


def samples(
    rows: Iterable[Row], refused: frozenset[int], pictures: Pictures, source: str, split: str
) -> Iterator[Sample]:
    """The samples of the rows that were not refused, one after another, in the list's order.

    Raises ValueError naming the row, for what no sample can be made of.
    """
    for row in rows:
        if row.row not in refused:
            _check(row)
            sizes = pictures.sizes(row)
            placed = _in_stored_pixels(row, sizes)
            _check_boxes(placed)
            yield _sample(placed, sizes, source, split)


def to_sample(row: Row, sizes: tuple[tuple[Size, Size], ...], source: str, split: str) -> Sample:
    """A row as a sample. `sizes` has for each picture its size as annotated and as it will be opened."""
    return _sample(_in_stored_pixels(row, sizes), sizes, source, split)


def _check(row: Row) -> None:
    """Raises ValueError for what training could not use, whatever the picture is."""
    if row.fault:
        raise ValueError(row.fault)
    known = TASKS[row.task].METHODS
    if row.reward not in known:
        raise ValueError(f"row {row.row}: reward {row.reward!r} is none of task {row.task}'s: {', '.join(known)}")
    if row.task in BOXED and not row.images:
        raise ValueError(f"row {row.row}: no picture; mend or remove the row")
    if not all(math.isfinite(v) for box in row.boxes for v in box):
        raise ValueError(f"row {row.row}: a box of {row.boxes[:3]} is not of finite numbers; mend or remove the row")


def _check_boxes(row: Row) -> None:
    """Raises ValueError for a box of which nothing is left inside its picture."""
    for place, box in enumerate(row.boxes):
        if not (box[0] < box[2] and box[1] < box[3]):
            said = ", ".join(f"{v:g}" for v in box)
            raise ValueError(
                f"row {row.row}: box {place}, [{said}] inside its picture, is empty or inverted; mend or remove the row"
            )


def _in_stored_pixels(row: Row, sizes: tuple[tuple[Size, Size], ...]) -> Row:
    """The row with its boxes in the pixels of the picture that will be opened."""
    if not row.boxes:
        return row
    old, new = sizes[0]
    boxes = tuple(_clipped(rescale(box, old, new) if old != new else box, new) for box in row.boxes)
    return row if boxes == row.boxes else replace(row, boxes=boxes)


def _sample(row: Row, sizes: tuple[tuple[Size, Size], ...], source: str, split: str) -> Sample:
    task = TASKS[row.task]
    return Sample(
        id=row.row,
        images=row.images,
        problem=task.question(row),
        solution=task.solution(row),
        task=row.task,
        reward=row.reward,
        source=source,
        split=split,
        sizes=tuple(new for _, new in sizes),
        group=row.group,
        kind=row.kind,
    )


def fitting(size: Size, max_pixels: int) -> Size:
    """The size itself, or the largest of the same shape that has at most that many pixels."""
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = (max_pixels / (width * height)) ** 0.5
    return max(1, int(width * scale)), max(1, int(height * scale))


def _clipped(box: Box, size: Size) -> Box:
    """The part of a box inside its picture; validation lets it pass the border by half a pixel."""
    return (max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1]))


def by_source(refused: Iterable[Mapping[str, object]]) -> dict[str, frozenset[int]]:
    """Refused rows by source."""
    found: dict[str, set[int]] = {}
    for entry in refused:
        found.setdefault(str(entry["source"]), set()).add(int(str(entry["row"])))
    return {name: frozenset(rows) for name, rows in found.items()}
