"""What a picture file is, in plain facts; a fault is a False, never an exception.

Paths never leave their folder, and a picture of too many pixels is never decoded. Files are looked at once each, by
several processes where there are many. Left out on purpose: pictures in archives or on the net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

KIN = {"MPO": "JPEG"}  # a telephone's JPEG with a preview behind it
MODES = ("RGB", "L")  # others become RGB in training: transparency, palettes and inks are lost
ORIENTATION = 274  # EXIF's tag; 1 is upright
POOLED = 64  # pictures to decode from which on other processes are worth their start
FLAT = 3  # levels of 256 that two neighbours may differ by and still be flat ground


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
    look: int | None = None  # a perceptual hash, where it was decoded
    fault: str = ""  # why it does not open


class Looks:
    """Looks at pictures, each once. To be closed, for it may have started processes."""

    def __init__(self, settings: Validate) -> None:
        self.settings = settings
        self.known: dict[tuple[Path, str], Facts] = {}
        self.inside: dict[tuple[Path, str], bool] = {}
        self.pool: ProcessPoolExecutor | None = None

    def look(self, folder: Path, rows: Iterable[Row], seen: Callable[[int], object]) -> None:
        """Look at every picture of the rows that is not known yet; `seen` counts them."""
        wanted = dict.fromkeys(name for row in rows for name in row.images)
        new = [name for name in wanted if (folder, name) not in self.known]
        full = self.settings.decode == "full"
        judge = partial(facts_of, folder, full=full, most=self.settings.max_picture_pixels)
        facts: Iterable[Facts] = map(judge, new)
        if full and self.settings.workers > 1 and (self.pool is not None or len(new) >= POOLED):
            if self.pool is None:
                # Spawned: whoever imported Great Expectations or torch has threads that a fork would tear.
                self.pool = ProcessPoolExecutor(self.settings.workers, get_context("spawn"))
            facts = self.pool.map(judge, new, chunksize=16)
        for name, one in zip(new, facts, strict=True):
            self.known[folder, name] = one
            seen(1)

    def stays(self, folder: Path, name: str) -> bool:
        """Whether a path stays inside its folder, links followed; the file itself is not looked at."""
        if (folder, name) not in self.inside:
            try:
                self.inside[folder, name] = inside(folder, name) is not None
            except ValueError:
                self.inside[folder, name] = False
        return self.inside[folder, name]

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

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
                format=KIN.get(picture.format or "", picture.format or ""),
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
    """384 bits, two for each pair of neighbours of the picture shrunk to 9 x 8, in each colour: rises it, falls it?

    Flat ground is neither, so that drawings on one ground differ where their objects stand and in their colours.
    """
    small, bits = picture.convert("RGB").resize((9, 8), Image.Resampling.BOX), 0
    for channel in small.split():
        values = channel.tobytes()
        for left, right in ((values[9 * y + x], values[9 * y + x + 1]) for y in range(8) for x in range(8)):
            bits = bits << 2 | 2 * (right - left > FLAT) | (left - right > FLAT)
    return bits


class Near:
    """Finds perceptual hashes within `BITS` of known ones: of one band more than that, one must be equal.

    Equal hashes are kept once, and of a crowded band the first, so that the work stays linear in the pictures.
    """

    BITS, WIDTH, CROWD = 5, 64, 32

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.bands: list[dict[int, list[int]]] = [{} for _ in range(self.BITS + 1)]

    def add(self, look: int, name: str) -> None:
        if self.names.setdefault(look, name) == name:
            for part, band in zip(self._parts(look), self.bands, strict=True):
                if len(others := band.setdefault(part, [])) < self.CROWD:
                    others.append(look)

    def find(self, look: int) -> str:
        """The name of a known picture that looks the same; empty for none."""
        if look in self.names:
            return self.names[look]
        for part, band in zip(self._parts(look), self.bands, strict=True):
            for other in band.get(part, ()):
                if (look ^ other).bit_count() <= self.BITS:
                    return self.names[other]
        return ""

    def _parts(self, look: int) -> list[int]:
        return [look >> self.WIDTH * i & (1 << self.WIDTH) - 1 for i in range(self.BITS + 1)]
