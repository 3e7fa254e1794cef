"""Scenes: coloured shapes on a grey ground, with exact boxes.

A box is the tight bound of the pixels drawn. Left out on purpose: overlap, texture, perspective.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vlmr1.boxes import Box, Size

PATIENCE = 30  # places tried for a thing among others
SIDE = 112  # pixels; 4 x 4 visual tokens of a Qwen2.5-VL
GROUND = (122, 117, 104)  # about zero after CLIP's normalisation: a zero-mean ground is what made learning fast
COLOURS = {
    "red": (230, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 60, 240),
    "yellow": (240, 225, 30),
    "magenta": (225, 40, 215),
    "cyan": (40, 215, 225),
    "white": (245, 245, 245),
    "black": (10, 10, 10),
}
SHAPES = ("square", "disc", "cross", "frame")  # of the things that expressions are about
MORE_SHAPES = ("triangle", "diamond")
INK = {"square": 1, "disc": 0.785, "cross": 5 / 9, "frame": 8 / 9, "triangle": 0.5, "diamond": 0.5}  # share of the box


@dataclass(frozen=True)
class Thing:
    """One drawn object. Its box is (x0, y0, x1, y1) in pixels, max corner exclusive."""

    shape: str
    colour: str
    box: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def centre(self) -> tuple[float, float]:
        return ((self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2)

    @property
    def side(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def ink(self) -> float:
        """Pixels painted, about."""
        return self.side**2 * INK[self.shape]


@dataclass(frozen=True)
class Layout:
    """How a split's pictures are composed."""

    objects: tuple[int, int]  # fewest and most
    colours: tuple[str, ...]
    sides: tuple[int, int]  # shortest and longest, pixels
    grid: int  # sides and positions are multiples of it, pixels


def compose(rng: random.Random, layout: Layout, distinct: str) -> list[Thing] | None:
    """Place things that do not touch; None where this attempt did not come out so.

    `distinct` is "colours" (no colour twice) or "names" (no colour and shape twice).
    """
    things = [_place(rng, layout) for _ in range(rng.randint(*layout.objects))]
    keys = [t.colour if distinct == "colours" else t.name for t in things]
    apart = not any(_touch(a.box, b.box) for i, a in enumerate(things) for b in things[:i])
    return things if apart and len(set(keys)) == len(keys) else None


def scatter(
    rng: random.Random, names: Sequence[str], sides: tuple[int, int], grid: int, size: Size = (SIDE, SIDE)
) -> list[Thing] | None:
    """Place one thing of each name, a colour and a shape, on a picture of `size`; None where they find no room."""
    things: list[Thing] = []
    for name in names:
        colour, shape = name.split()
        for _ in range(PATIENCE):
            side = rng.randrange(sides[0], sides[1] + 1, grid)
            x, y = (rng.randrange(0, length - side + 1, grid) for length in size)
            box = (x, y, x + side, y + side)
            if not any(_touch(box, thing.box) for thing in things):
                things.append(Thing(shape, colour, box))
                break
        else:
            return None
    return things


def _place(rng: random.Random, layout: Layout) -> Thing:
    side = rng.randrange(layout.sides[0], layout.sides[1] + 1, layout.grid)
    x, y = (rng.randrange(0, SIDE - side + 1, layout.grid) for _ in range(2))
    return Thing(rng.choice(SHAPES), rng.choice(layout.colours), (x, y, x + side, y + side))


def _touch(a: Box, b: Box) -> bool:
    margin = 3  # pixels of ground between two objects
    return a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin


def draw(things: Sequence[Thing], size: Size = (SIDE, SIDE)) -> Image.Image:
    """The picture of a scene, RGB, of that (width, height)."""
    picture = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(picture)
    for thing in things:
        x0, y0, x1, y1 = thing.box
        colour, edge = COLOURS[thing.colour], (x0, y0, x1 - 1, y1 - 1)  # Pillow's max corner is inclusive
        third = thing.side // 3
        if thing.shape == "square":
            pen.rectangle(edge, fill=colour)
        elif thing.shape == "disc":
            pen.ellipse(edge, fill=colour)
        elif thing.shape == "frame":
            pen.rectangle(edge, fill=colour)
            pen.rectangle((x0 + third, y0 + third, x1 - 1 - third, y1 - 1 - third), fill=GROUND)
        elif thing.shape == "triangle":
            pen.polygon([((x0 + x1 - 1) / 2, y0), (x1 - 1, y1 - 1), (x0, y1 - 1)], fill=colour)
        elif thing.shape == "diamond":
            x, y = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
            pen.polygon([(x, y0), (x1 - 1, y), (x, y1 - 1), (x0, y)], fill=colour)
        else:  # cross
            pen.rectangle((x0 + third, y0, x1 - 1 - third, y1 - 1), fill=colour)
            pen.rectangle((x0, y0 + third, x1 - 1, y1 - 1 - third), fill=colour)
    return picture
