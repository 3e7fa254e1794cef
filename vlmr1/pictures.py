"""The one way to open a picture file that comes from data: known formats, a bound of pixels, one kind of error.

Only four formats are ever decoded. Pillow knows many more, some through plugins that start other programs or fail in
ways of their own; these are told by their first bytes and left alone. Left out on purpose: archives and addresses.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MOST_PIXELS = 178_956_970  # no larger picture is decoded, whatever params.yaml says; twice Pillow's own warning
Image.MAX_IMAGE_PIXELS = MOST_PIXELS

HEAD = 32  # bytes that tell a format
OTHERS = {  # by how their files begin
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"DDS ": "DDS",
    b"\0\0\0\x0cjP": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"8BPS": "PSD",
    b"\0\0\1\0": "ICO",
    b"<svg": "SVG",
}
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}  # after "ftyp"
# What Pillow raises on bad bytes of the four formats, in its own code and in what it calls.
FAULTS = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, MemoryError, TypeError, LookupError, struct.error)


class PictureFault(ValueError):
    """A file that is no picture to be used. `format` is another one's name, where its first bytes tell it."""

    def __init__(self, reason: str, format: str = "") -> None:
        super().__init__(reason, format)  # all it is made of, so that it travels from a worker process
        self.reason, self.format = reason, format

    def __str__(self) -> str:
        return self.reason


class TooManyPixels(PictureFault):
    """A picture larger than asked for; it was not decoded."""


@contextmanager
def open_picture(path: Path, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """The picture in a regular file, its head read, its pixels not yet; closed when the block ends.

    Decode it inside the block, and do nothing else there: whatever the file is guilty of becomes a PictureFault without
    the path, TooManyPixels for more than `most` pixels.
    """
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise PictureFault("no regular file" if path.exists() else "not there")
        with Image.open(path, formats=FORMATS) as picture:
            pixels = picture.width * picture.height
            if pixels > min(most, MOST_PIXELS):
                raise TooManyPixels(f"{pixels:,} pixels, more than {min(most, MOST_PIXELS):,}")
            yield picture
    except PictureFault:
        raise
    except UnidentifiedImageError as error:
        other = format_of(path)
        reason = f"{other}, save it as one of {', '.join(FORMATS)}" if other else "no picture"
        raise PictureFault(reason, other) from error
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except (*FAULTS, zlib.error) as error:
        raise PictureFault(str(error) or type(error).__name__) from error


def format_of(path: Path) -> str:
    """The format that a file's first bytes tell, of those that are never decoded; "" for any other file."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "")
    return next((name for start, name in OTHERS.items() if head.startswith(start)), "")
