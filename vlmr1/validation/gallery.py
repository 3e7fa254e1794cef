"""Offending pictures with their boxes, a sheet a rule. Left out on purpose: pictures that do not open."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from vlmr1.files import inside
from vlmr1.rows import Row

SHOWN = 6  # pictures a sheet
SIDE = 200  # pixels of a picture on it


class Gallery:
    """Keeps the first offending rows of each rule, then draws them."""

    def __init__(self) -> None:
        self.kept: dict[str, list[tuple[Path, str, Row]]] = {}

    def keep(self, rule: str, folder: Path, source: str, row: Row) -> None:
        kept = self.kept.setdefault(rule, [])
        if row.images and len(kept) < SHOWN:
            kept.append((folder, source, row))

    def draw(self, target: Path, most: int) -> list[str]:
        """A PNG a rule below `target`, of pictures of at most so many pixels; the rules that have one."""
        drawn = []
        for rule, kept in self.kept.items():
            tiles = [tile for tile in (_tile(*one, most) for one in kept) if tile is not None]
            if tiles:
                sheet = Image.new("RGB", (len(tiles) * SIDE, SIDE + 16), "white")
                for place, tile in enumerate(tiles):
                    sheet.paste(tile, (place * SIDE, 0))
                target.mkdir(parents=True, exist_ok=True)
                sheet.save(target / f"{rule}.png")
                drawn.append(rule)
        return drawn


def _tile(folder: Path, source: str, row: Row, most: int) -> Image.Image | None:
    """A small picture with its boxes in red and its name below; None where it cannot be opened."""
    try:
        with Image.open(inside(folder, row.images[0])) as picture:
            if picture.width * picture.height > most:
                return None
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # another rule says so; there is nothing to show
    scale = min(SIDE / small.width, SIDE / small.height)
    size = max(1, round(small.width * scale)), max(1, round(small.height * scale))
    tile = Image.new("RGB", (SIDE, SIDE + 16), "white")
    tile.paste(small.resize(size), (0, 0))
    pen = ImageDraw.Draw(tile)
    for box in row.boxes:
        edges = [max(-1e6, min(1e6, v * scale)) for v in box if v == v]
        if len(edges) == 4 and edges[0] <= edges[2] and edges[1] <= edges[3]:
            pen.rectangle(edges, outline=(230, 30, 30), width=2)
    pen.rectangle((0, SIDE, SIDE, SIDE + 16), fill="white")
    pen.text((2, SIDE + 2), f"{source} row {row.row}", fill="black")
    return tile
