"""Charts to read off: bars, a crowd of shapes, a clock face. Every number asked for is in the picture.

Left out on purpose: values between two grid lines, and text that must be read to know which bar is meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmr1.world.draw import INK, LINE, PAPER, Canvas
from vlmr1.world.scenes import COLOURS, Thing, draw

WIDTH = HEIGHT = 140  # pixels of a diagram
MOST = 10  # the highest bar


@dataclass(frozen=True)
class Bars:
    """A bar chart, one bar a colour; heights are whole numbers, 1 to 10."""

    colours: tuple[str, ...]
    heights: tuple[int, ...]

    def draw(self, canvas: Canvas) -> None:
        left, right, bottom, unit = 18, 134, 130, 12
        for level in range(MOST + 1):
            y = bottom - unit * level
            canvas.line([(left, y), (right, y)], INK if level == 0 else LINE)
            if level % 2 == 0:
                canvas.text(left - 4, y, str(level), 9, anchor="rm")
        step = (right - left) / len(self.heights)
        for place, (colour, height) in enumerate(zip(self.colours, self.heights, strict=True)):
            x = left + step * (place + 0.5)
            canvas.box(x - step * 0.3, bottom - unit * height, x + step * 0.3, bottom, COLOURS[colour])
        canvas.line([(left, 8), (left, bottom)], INK)


@dataclass(frozen=True)
class Crowd:
    """Coloured shapes to be counted."""

    things: tuple[Thing, ...]

    def count(self, word: str) -> int:
        """How many have that colour or shape."""
        return sum(word in (thing.colour, thing.shape) for thing in self.things)

    def draw(self, canvas: Canvas) -> None:
        canvas.paste(draw(self.things, (WIDTH, HEIGHT)))


@dataclass(frozen=True)
class Clock:
    """A clock face with two hands. `hour` is 0 to 11, `minute` a multiple of 5."""

    hour: int
    minute: int
    colour: str  # of the rim
    numbered: bool  # all hours written, or quarters only

    def draw(self, canvas: Canvas) -> None:
        x, y = WIDTH / 2, HEIGHT / 2
        canvas.disc(x, y, 66, COLOURS[self.colour])
        canvas.disc(x, y, 60, PAPER)
        for mark in range(60):
            if mark % 5:
                canvas.disc(*_hand(x, y, 57, mark / 60), 0.7, INK)
            else:
                canvas.line([_hand(x, y, 54, mark / 60), _hand(x, y, 59, mark / 60)], INK, 2)
        for hour in range(1, 13):
            if self.numbered or hour % 3 == 0:
                canvas.text(*_hand(x, y, 46, hour / 12), str(hour), 11)
        canvas.line([(x, y), _hand(x, y, 24, (self.hour + self.minute / 60) / 12)], INK, 5)
        canvas.line([(x, y), _hand(x, y, 40, self.minute / 60)], COLOURS["yellow"], 3)
        canvas.disc(x, y, 4, INK)


def clock_time(hour: int, minute: int) -> str:
    return f"{hour or 12}:{minute:02d}"


def _hand(x: float, y: float, length: float, turn: float) -> tuple[float, float]:
    """The point that far from the middle, a share of a turn clockwise from the top."""
    return x + length * math.sin(2 * math.pi * turn), y - length * math.cos(2 * math.pi * turn)
