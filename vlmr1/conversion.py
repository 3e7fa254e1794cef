"""Rows become samples: questions and truths as text, boxes in the pixels of the picture that training will open.

Left out on purpose: judging rows, which validation does; a row that cannot be converted at all is an error here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from vlmr1.boxes import Box, Size, rescale
from vlmr1.files import inside
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS


class Pictures:
    """The pictures of a source: where they lie, their sizes, and the copies that were asked for."""

    def __init__(self, folder: Path, copies: Path | None, max_pixels: int) -> None:
        """With `copies`, pictures are stored there, shrunk to `max_pixels`; else they stay where they are."""
        self.folder, self.copies, self.max_pixels = folder, copies, max_pixels
        self.known: dict[str, tuple[Size, Size]] = {}  # as it lies in the folder, as training will open it

    def sizes(self, row: Row) -> tuple[tuple[Size, Size], ...]:
        """Of each of a row's pictures. Raises ValueError for a picture that must be opened and does not open."""
        for place, name in enumerate(row.images):
            if name not in self.known:
                declared = row.sizes[place] if row.sizes else None
                self.known[name] = self._store(row, name) if self.copies else self._measure(row, name, declared)
        return tuple(self.known[name] for name in row.images)

    def _measure(self, row: Row, name: str, declared: Size | None) -> tuple[Size, Size]:
        if declared is None:
            with self._opened(row, name) as picture:
                declared = picture.size
        return declared, declared

    def _store(self, row: Row, name: str) -> tuple[Size, Size]:
        """Put a copy into the converted set, shrunk if it must be."""
        assert self.copies is not None
        target = inside(self.copies, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._opened(row, name) as picture:
            size, fit = picture.size, fitting(picture.size, self.max_pixels)
            if fit == size:
                target.write_bytes((self.folder / name).read_bytes())
            else:
                picture.convert("RGB").resize(fit, Image.Resampling.BICUBIC).save(target)
        return size, fit

    def _opened(self, row: Row, name: str) -> Image.Image:
        try:
            return Image.open(inside(self.folder, name))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"row {row.row}: picture {name} does not open ({error}); mend or remove the row"
            ) from error

    def hashes(self) -> dict[str, str]:
        """sha256 of every picture seen, as training will open it; empty for one that is not there."""
        folder, found = self.copies or self.folder, {}
        for name in sorted(self.known):
            path = inside(folder, name)
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        return found


def samples(
    rows: Iterable[Row], refused: frozenset[int], pictures: Pictures, source: str, split: str
) -> Iterator[Sample]:
    """The samples of the rows that were not refused, one after another, in the list's order."""
    for row in rows:
        if row.row not in refused:
            yield to_sample(row, pictures.sizes(row), source, split)


def to_sample(row: Row, sizes: tuple[tuple[Size, Size], ...], source: str, split: str) -> Sample:
    """A row as a sample. `sizes` has for each picture its size as annotated and as it will be opened."""
    if row.boxes:
        old, new = sizes[0]
        boxes = tuple(_clipped(rescale(box, old, new) if old != new else box, new) for box in row.boxes)
        row = row if boxes == row.boxes else replace(row, boxes=boxes)
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
