"""Plane figures: a rectangle and a right triangle on a grid, two angles on a dial, a triangle with two known angles.

Lengths are cells of the grid, angles whole degrees; figures are drawn to scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmr1.world.charts import HEIGHT, WIDTH
from vlmr1.world.draw import INK, LINE, PAPER, Canvas
from vlmr1.world.scenes import COLOURS

CELLS, CELL, EDGE = 9, 14, 7  # cells a side of the grid, pixels a cell, pixels around the grid


@dataclass(frozen=True)
class OnGrid:
    """A rectangle, or the right triangle that is half of it, on squared paper."""

    colour: str
    x: int  # cells, of the left side
    y: int  # cells, of the top
    width: int
    height: int
    halved: bool = False  # a triangle, its right angle at the lower left

    def draw(self, canvas: Canvas) -> None:
        x0, y0 = EDGE + self.x * CELL, EDGE + self.y * CELL
        x1, y1 = x0 + self.width * CELL, y0 + self.height * CELL
        corners = [(x0, y0), (x1, y1), (x0, y1)] if self.halved else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        canvas.polygon(corners, COLOURS[self.colour])
        for i in range(CELLS + 1):
            at, end = EDGE + i * CELL, EDGE + CELLS * CELL
            canvas.line([(at, EDGE), (at, end)], LINE)
            canvas.line([(EDGE, at), (end, at)], LINE)
        canvas.line([*corners, corners[0], corners[1]], INK, 2)


@dataclass(frozen=True)
class Dial:
    """Two angles side by side on a dial with a mark every 30 degrees; both are multiples of 30."""

    colours: tuple[str, str]
    start: int  # degrees counterclockwise from the right
    angles: tuple[int, int]

    def draw(self, canvas: Canvas) -> None:
        x, y, middle = WIDTH / 2, HEIGHT / 2, self.start + self.angles[0]
        canvas.disc(x, y, 62, PAPER)
        canvas.wedge(x, y, 56, self.start, middle, COLOURS[self.colours[0]])
        canvas.wedge(x, y, 56, middle, middle + self.angles[1], COLOURS[self.colours[1]])
        for mark in range(0, 360, 30):
            canvas.line([_at(x, y, 10, mark), _at(x, y, 55, mark)], LINE)
            canvas.line([_at(x, y, 57, mark), _at(x, y, 65, mark)], INK, 2)
        for ray in (self.start, middle, middle + self.angles[1]):
            canvas.line([(x, y), _at(x, y, 60, ray)], INK, 2)


@dataclass(frozen=True)
class Triangle:
    """A triangle with a coloured mark in each corner; two angles are written, the third is asked for."""

    colours: tuple[str, str, str]
    angles: tuple[int, int, int]  # degrees, 180 in all
    unknown: int  # which of the three is not written
    turn: int  # degrees by which the figure is turned

    def draw(self, canvas: Canvas) -> None:
        corners = self.corners()
        canvas.polygon(corners, PAPER)
        for i, (x, y) in enumerate(corners):
            rays = [math.degrees(math.atan2(y - v, u - x)) % 360 for u, v in corners if (u, v) != (x, y)]
            low, high = sorted(rays)
            if high - low > 180:
                low, high = high, low + 360
            canvas.wedge(x, y, 17, low, high, COLOURS[self.colours[i]])
        canvas.line([*corners, corners[0], corners[1]], INK, 2)
        for i, (x, y) in enumerate(corners):
            away = math.hypot(x - WIDTH / 2, y - HEIGHT / 2)
            u, v = x + 12 * (x - WIDTH / 2) / away, y + 10 * (y - HEIGHT / 2) / away
            canvas.text(u, v, "?" if i == self.unknown else f"{self.angles[i]}°", 12)

    def corners(self) -> list[tuple[float, float]]:
        """On a circle around the middle, where an angle of the triangle is half the arc across from it."""
        a, b, _ = self.angles
        return [_at(WIDTH / 2, HEIGHT / 2, 46, self.turn + arc) for arc in (0, 360 - 2 * b - 2 * a, 360 - 2 * b)]


def _at(x: float, y: float, length: float, degrees: float) -> tuple[float, float]:
    """The point that far from (x, y), in that direction counterclockwise from the right."""
    return x + length * math.cos(math.radians(degrees)), y - length * math.sin(math.radians(degrees))
