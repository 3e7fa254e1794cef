"""What a picture file is, in plain facts; a fault is a False, never an exception.

Paths never leave their folder, and a picture of too many pixels is never decoded. Files are looked at once each, by
several processes where there are many. Left out on purpose: pictures in archives or on the net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from vlmr1.boxes import Size
from vlmr1.files import inside, sha256
from vlmr1.pictures import PictureFault, TooManyPixels, open_picture
from vlmr1.rows import Row
from vlmr1.settings import Validate

MODES = ("RGB", "L")  # others become RGB in training: transparency, palettes and inks are lost
ORIENTATION = 274  # EXIF's tag; 1 is upright
POOLED = 64  # pictures from which on other processes are worth their start


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one file. Everything after the first False is unknown, and so says nothing."""

    inside: bool = False
    exists: bool = False
    opens: bool = False
    few_pixels: bool = True
    format: str = ""
    mode: str = ""
    upright: bool = True
    size: Size | None = None  # (width, height) as stored
    hash: str = ""  # of its bytes
    look: int | None = None  # a perceptual hash of 64 bits, where it was decoded
    fault: str = ""  # why it does not open


class Looks:
    """Looks at pictures, each once."""

    def __init__(self, settings: Validate) -> None:
        self.settings = settings
        self.known: dict[tuple[Path, str], Facts] = {}

    def look(self, folder: Path, rows: Iterable[Row], seen: Callable[[int], object]) -> None:
        """Look at every picture of the rows that is not known yet; `seen` counts them."""
        wanted = dict.fromkeys(name for row in rows for name in row.images)
        new = [name for name in wanted if (folder, name) not in self.known]
        judge = partial(facts_of, folder, full=self.settings.decode == "full", most=self.settings.max_picture_pixels)
        if self.settings.workers == 1 or len(new) < POOLED:
            for name in new:
                self.known[folder, name] = judge(name)
                seen(1)
            return
        # Spawned: whoever imported Great Expectations or torch has threads that a fork would tear.
        with ProcessPoolExecutor(self.settings.workers, get_context("spawn")) as pool:
            for name, facts in zip(new, pool.map(judge, new, chunksize=16), strict=True):
                self.known[folder, name] = facts
                seen(1)

    def of(self, folder: Path, row: Row) -> list[Facts]:
        """The facts of a row's pictures, which `look` has looked at."""
        return [self.known[folder, name] for name in row.images]


def facts_of(folder: Path, name: str, *, full: bool, most: int) -> Facts:
    """What a picture file is; all its pixels are read where `full`."""
    try:
        path = inside(folder, name)
    except ValueError:
        return Facts()
    digest = ""
    try:
        if not path.exists():
            return Facts(inside=True)
        digest = sha256(path) if path.is_file() else ""
        with open_picture(path, most) as picture:
            if full:
                picture.load()
            return Facts(
                inside=True,
                exists=True,
                opens=True,
                format=picture.format or "",
                mode=picture.mode,
                upright=_upright(picture),
                size=picture.size,
                hash=digest,
                look=difference_hash(picture) if full else None,
            )
    except TooManyPixels:
        return Facts(inside=True, exists=True, opens=True, few_pixels=False, hash=digest)
    except PictureFault as fault:
        known = fault.format != ""
        said = "" if known else fault.reason
        return Facts(inside=True, exists=True, opens=known, format=fault.format, hash=digest, fault=said)
    except OSError as error:  # a name too long for the disk, a file that may not be read
        return Facts(inside=True, exists=True, hash=digest, fault=error.strerror or str(error))


def _upright(picture: Image.Image) -> bool:
    """Whether no EXIF tag turns it. A PNG without the tag in its head is not asked: looking would decode it."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return True
    return picture.getexif().get(ORIENTATION, 1) in (0, 1)


def difference_hash(picture: Image.Image) -> int:
    """64 bits, one a pair of neighbours of the picture shrunk to 9 x 8 greys: is the right one brighter?"""
    grey = picture.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for y in range(8):
        for x in range(8):
            bits = bits << 1 | (grey[9 * y + x + 1] > grey[9 * y + x])
    return bits


class Near:
    """Finds perceptual hashes within a few bits of known ones: of as many bands as bits + 1, one must be equal."""

    BITS = 2

    def __init__(self) -> None:
        self.bands: Mapping[int, dict[int, list[tuple[int, str]]]] = {0: {}, 1: {}, 2: {}}

    def add(self, look: int, name: str) -> None:
        for band, found in self.bands.items():
            found.setdefault(_band(look, band), []).append((look, name))

    def find(self, look: int) -> str | None:
        """The name of a known picture that looks the same."""
        for band, found in self.bands.items():
            for other, name in found.get(_band(look, band), []):
                if (look ^ other).bit_count() <= self.BITS:
                    return name
        return None


def _band(look: int, band: int) -> int:
    return look >> 22 * band & (1 << 22) - 1
