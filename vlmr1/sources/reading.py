"""What readers share: files opened, fields taken and faults named, in one sentence with file, item, field and mend.

JSON is read whole by the standard library, with the fields nobody asks for (masks, tokens) dropped as each object
closes: so 321,327 expressions and 200,000 instances take about half a gigabyte, and no streaming parser is needed.
"""

from __future__ import annotations

import difflib
import gc
import json
import reprlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from vlmr1.boxes import Box, Size, from_xywh
from vlmr1.files import inside
from vlmr1.pictures import PictureFault, open_picture
from vlmr1.sample import numbered_jsonl, saved_as
from vlmr1.tasks.rec import QUESTION

NOT_FOUND = "not found"
THOUSANDTHS: Size = (1000, 1000)  # the frame of boxes that count 0 to 1000 on both axes
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
LONGEST = 10**9  # pixels
LINES = (
    "if it holds one object a line, end its name in .jsonl and name a format of lines (jsonl, rec_jsonl, gui, table)"
)
LONGEST_SHOWN = 80  # characters of a value from data
KINDS = {str: "text", list: "a list", dict: "an object", int: "a whole number", bool: "true or false"}


def shown(value: Any) -> str:
    """A value from data, short enough for a sentence however large or deep it is."""
    said = _SHORT.repr(value)
    return said if len(said) <= LONGEST_SHOWN else f"{said[: LONGEST_SHOWN - 1]}…"


class At:
    """`with At(path, "row", 3):` puts the place before a ValueError from inside, and the mend after it.

    A file that is one item has no further place: `At(path)`.
    """

    __slots__ = ("number", "path", "what")

    def __init__(self, path: Path, what: str = "", number: int | str = "") -> None:
        self.path, self.what, self.number = path, what, number

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, ValueError):
            place = f"{self.path}: {self.what} {self.number}" if self.what else f"{self.path}"
            raise ValueError(f"{place}: {error}; mend or remove it") from error


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """No garbage collection meanwhile: building millions of plain values it finds none and costs most of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def there(path: Path) -> None:
    """Raises FileNotFoundError, or ValueError for a folder, where a file is needed."""
    if path.is_dir():
        raise ValueError(f"{path}: a folder where a file is needed; name the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {NOT_FOUND}")


def load_json(path: Path, drop: tuple[str, ...] = (), form: str = LINES) -> Any:
    """The JSON of a file, without the fields to `drop`; `form` is what to say of one that holds several values.

    Raises FileNotFoundError, or ValueError naming file and line.
    """
    there(path)

    def slim(item: dict[str, Any]) -> dict[str, Any]:
        for key in drop:
            item.pop(key, None)
        return item

    try:
        with path.open(encoding="utf-8-sig") as file, collector_at_rest():  # a byte order mark is no fault
            return json.load(file, object_hook=slim if drop else None)
    except json.JSONDecodeError as error:
        lines = f"; {form}" if error.msg == "Extra data" else ""
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}){lines}") from error
    except UnicodeDecodeError as error:
        with path.open("rb") as raw:
            raise ValueError(f"{path}: not UTF-8 text; {saved_as(raw.read(8))}") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting without end
        raise ValueError(f"{path}: not JSON ({error})") from error


def load_list(path: Path) -> list[Any]:
    """A JSON list with something in it."""
    items = load_json(path)
    if not isinstance(items, list):
        raise ValueError(f"{path}: a list of rows is needed, not {shown(items)}")
    if not items:
        raise ValueError(f"{path}: no rows in it")
    return items


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a JSONL file with something in it, one after another."""
    there(path)
    found = False
    for line in numbered_jsonl(path):
        found = True
        yield line
    if not found:
        raise ValueError(f"{path}: no rows in it")


def no_misspelt(item: dict[str, Any], optional: Collection[str], known: Collection[str]) -> None:
    """Raises ValueError for a field that is not known but nearly one of `optional`, which would else go unread."""
    plain = {key.replace("_", ""): key for key in optional}
    for key in item:
        if key not in known and key not in optional:
            near = difflib.get_close_matches(key.lower().replace("_", "").replace("-", ""), plain, n=1, cutoff=0.85)
            if near:
                raise ValueError(f"no field is named {shown(key)}; did you mean {plain[near[0]]}?")


def take(item: Any, key: str, kind: type) -> Any:
    """The field of an object, of that type. Raises ValueError."""
    if not isinstance(item, dict):
        raise ValueError(f"an object is needed, not {shown(item)}")
    if key not in item:
        raise ValueError(f"no {key}")
    value: Any = item[key]
    fits: bool = isinstance(value, kind)
    if not fits or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key} is {shown(value)} where {KINDS[kind]} is needed")
    if kind is str and not value.isascii():
        value.encode()  # half a character, which JSON can spell and no file hold, is a ValueError here
    return value


def take_texts(item: Any, key: str) -> list[str]:
    """A field that is a list of texts."""
    values: list[Any] = take(item, key, list)
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{key} holds {shown(value)} where text is needed")
        if not value.isascii():
            value.encode()  # as in `take`
    return values


def take_id(item: Any, key: str) -> int | str:
    """A field that names a thing: a whole number or a text."""
    if isinstance(item, dict) and isinstance(item.get(key), str):
        return item[key]
    return take(item, key, int)


def take_ids(item: Any, key: str) -> list[int | str]:
    """A field that is a list of ids."""
    values: list[Any] = take(item, key, list)
    for value in values:
        if not isinstance(value, int | str):
            raise ValueError(f"{key} holds {shown(value)} where an id is needed")
    return values


def numbers(value: Any, count: int, name: str) -> list[float]:
    """A list of so many numbers; whether they are finite is for validation."""
    if not isinstance(value, list | tuple) or len(value) != count:
        raise ValueError(f"{name} {shown(value)} is not a list of {count} numbers")
    for v in value:
        if not isinstance(v, int | float) or isinstance(v, bool):
            raise ValueError(f"{name} holds {shown(v)} where a number is needed")
    try:
        return [float(v) for v in value]
    except OverflowError as error:
        raise ValueError(f"{name} holds a number beyond all measure") from error


def corners(value: Any, name: str) -> Box:
    """[x0, y0, x1, y1]."""
    x0, y0, x1, y1 = numbers(value, 4, name)
    return (x0, y0, x1, y1)


def xywh(value: Any, name: str) -> Box:
    """COCO's [x, y, width, height] as corners."""
    return from_xywh(numbers(value, 4, name))


def size_of(item: Any) -> Size:
    """`width` and `height` of an object, whole numbers."""
    return measured(take(item, "width", int), take(item, "height", int))


def measured(width: int, height: int) -> Size:
    """A picture's size, of numbers that can be reckoned with; whether it is the picture's is for validation."""
    if max(abs(width), abs(height)) > LONGEST:
        raise ValueError("a width or height beyond all measure")
    return (width, height)


def size_of_picture(folder: Path, name: str) -> Size:
    """(width, height) from the head of a picture below `folder`. Raises ValueError when there is none to be read."""
    try:
        with open_picture(inside(folder, name)) as picture:
            return picture.size
    except PictureFault as fault:
        raise ValueError(f"image {name!r}: its size is needed and {folder / name} does not open ({fault})") from fault


def expression_of(question: str) -> str:
    """The expression inside the original project's REC question, or the text itself where it is not that question."""
    text = question.strip()
    return text.removeprefix(QUESTION).strip().removesuffix(".") if text.startswith(QUESTION) else text
