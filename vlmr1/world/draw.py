"""What all worlds share: a smooth pen, and the promise that no picture stands twice."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

from vlmr1.boxes import Size
from vlmr1.world.scenes import GROUND

Colour = tuple[int, int, int]
Told = Callable[[int], object]  # called with how many more are drawn
TIRED = 2000  # pictures tried for one before the settings are called impossible
FINE = 2  # pictures are drawn this many times larger and averaged, which makes edges smooth
INK, PAPER, LINE = (250, 250, 250), (62, 60, 56), (96, 92, 84)  # text, dark fields, thin lines


def no_new_picture(world: str, split: str, mend: str) -> ValueError:
    return ValueError(f"params.yaml: world.{world}.splits.{split}: no new picture in {TIRED} tries; ask for {mend}")


class Seen:
    """The pictures drawn so far, by their pixels."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def new(self, *pictures: Image.Image) -> bool:
        """Whether these differ from all before and from each other; if so, they count as drawn."""
        digests = {hashlib.blake2b(repr(p.size).encode() + p.tobytes(), digest_size=16).digest() for p in pictures}
        if len(digests) < len(pictures) or digests & self._digests:
            return False
        self._digests |= digests
        return True


class Canvas:
    """A picture to draw on. Coordinates are its pixels, x to the right, y downwards, max corners exclusive."""

    def __init__(self, size: Size, ground: Colour = GROUND) -> None:
        self._picture = Image.new("RGB", (size[0] * FINE, size[1] * FINE), ground)
        self._pen = ImageDraw.Draw(self._picture)

    def done(self) -> Image.Image:
        return self._picture.reduce(FINE)

    def paste(self, picture: Image.Image) -> None:
        """Another picture in the upper left, pixel for pixel."""
        self._picture.paste(picture.resize((picture.width * FINE, picture.height * FINE), Image.Resampling.NEAREST))

    def box(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        fill: Colour | None,
        round_: float = 0,
        edge: Colour | None = None,
    ) -> None:
        corners = (x0 * FINE, y0 * FINE, x1 * FINE - 1, y1 * FINE - 1)
        self._pen.rounded_rectangle(corners, round_ * FINE, fill=fill, outline=edge, width=FINE if edge else 0)

    def disc(self, x: float, y: float, radius: float, fill: Colour | None, edge: Colour | None = None) -> None:
        corners = [(v + sign * radius) * FINE - (sign > 0) for sign in (-1, 1) for v in (x, y)]
        self._pen.ellipse(corners, fill=fill, outline=edge, width=FINE if edge else 0)

    def wedge(self, x: float, y: float, radius: float, start: float, end: float, fill: Colour) -> None:
        """A slice of a disc between two directions, degrees counterclockwise from the right."""
        corners = [(v + sign * radius) * FINE - (sign > 0) for sign in (-1, 1) for v in (x, y)]
        self._pen.pieslice(corners, -end, -start, fill=fill)  # Pillow counts clockwise

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        self._pen.polygon([(x * FINE, y * FINE) for x, y in points], fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, width: float = 1) -> None:
        self._pen.line([(x * FINE, y * FINE) for x, y in points], fill=fill, width=round(width * FINE), joint="curve")

    def text(self, x: float, y: float, words: str, size: float = 10, fill: Colour = INK, anchor: str = "mm") -> None:
        """Words at a point; the anchor is Pillow's, "mm" for the middle. The font is Pillow's own (Aileron, CC0)."""
        self._pen.text((x * FINE, y * FINE), words, fill=fill, font=_font(size * FINE), anchor=anchor)

    def width(self, words: str, size: float = 10) -> float:
        """Pixels that the words take, from one side to the other."""
        return self._pen.textlength(words, font=_font(size * FINE)) / FINE


@functools.cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
