"""Offending pictures with their boxes, a sheet a rule. Left out on purpose: pictures that do not open."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw

from vlmr1.files import inside
from vlmr1.pictures import open_picture
from vlmr1.rows import Row
from vlmr1.validation.rules import Offence

SHOWN = 6  # pictures a sheet
SIDE, GAP, LINES = 200, 8, 28  # pixels: of a picture, between two, of the two lines below


class Gallery:
    """Keeps the first offending rows of each rule, then draws them."""

    def __init__(self) -> None:
        self.kept: dict[str, list[tuple[Path, str, Row, str]]] = {}

    def keep(self, offence: Offence, folder: Path, source: str, row: Row) -> None:
        kept = self.kept.setdefault(offence.rule, [])
        if row.images and len(kept) < SHOWN:
            kept.append((folder, source, row, offence.value))

    def draw(self, target: Path, most: int) -> list[str]:
        """A PNG a rule below `target`, of pictures of at most so many pixels; the rules that have one."""
        drawn = []
        for rule, kept in self.kept.items():
            tiles = [tile for tile in (_tile(*one, most) for one in kept) if tile is not None]
            if tiles:
                sheet = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + LINES), "white")
                for place, tile in enumerate(tiles):
                    sheet.paste(tile, (place * (SIDE + GAP), 0))
                target.mkdir(parents=True, exist_ok=True)
                sheet.save(target / f"{rule}.png")
                drawn.append(rule)
        return drawn


def _tile(folder: Path, source: str, row: Row, value: str, most: int) -> Image.Image | None:
    """A small picture with its boxes in red, its name and what is wrong below; None where it cannot be opened."""
    try:
        with open_picture(inside(folder, row.images[0]), most) as picture:
            small = picture.convert("RGB")
    except ValueError:
        return None  # another rule says so; there is nothing to show
    scale = min(SIDE / small.width, SIDE / small.height)
    size = max(1, round(small.width * scale)), max(1, round(small.height * scale))
    tile = Image.new("RGB", (SIDE, SIDE + LINES), "white")
    small = small.resize(size)
    pen = ImageDraw.Draw(small)
    for box in row.boxes:
        if all(math.isfinite(v) for v in box):  # inverted ones are drawn turned round, those outside at the border
            xs, ys = (sorted(min(max(v * scale, 0), side - 1) for v in box[i::2]) for i, side in enumerate(size))
            pen.rectangle((xs[0], ys[0], max(xs[1], xs[0] + 2), max(ys[1], ys[0] + 2)), outline=(230, 30, 30), width=2)
    tile.paste(small, (0, 0))
    words = ImageDraw.Draw(tile)
    words.text((2, SIDE + 1), f"{source} row {row.row}: {Path(row.images[0]).name}"[:36], fill="black")
    words.text((2, SIDE + 14), value[:36], fill=(150, 20, 20))
    return tile
