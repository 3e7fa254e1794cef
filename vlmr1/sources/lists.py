"""Lists as files: the items of a .json, .jsonl, .csv or .parquet file, one after another, each with its place.

Lines, rows and row groups are streamed; a .json file is read whole, as its form forces. An item is a dict of its
fields, its place what is said of it: `file:line`, or `file: row 5`. What is wrong with one item is said when its
fields are asked for, so that those after it are read. Left out on purpose: pictures inside a list
(base64, bytes), which would be read again at every turn; they belong in the picture folder.
"""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from vlmr1.sample import numbered_jsonl
from vlmr1.sources.reading import load_json, there

Item = tuple[str, Any]  # its place, and its fields or what stands where they should
ONE_OF = "a list ends in .json, .jsonl, .csv or .parquet"
SEPARATORS = {";": "semicolons", "\t": "tabs"}
PLAIN = (Decimal, date, time, timedelta, uuid.UUID)  # cells of a Parquet file that are text once written
ROWS_AT_ONCE = 1024  # of a Parquet file
MEND_COLUMNS = "mend the source's columns, which name those of the table"


def items(path: Path, columns: Collection[str] | None = None) -> Iterator[Item]:
    """The items of a list, in its order; `fields_of` has their fields. Of a Parquet file only `columns` are read.

    Raises FileNotFoundError, or ValueError naming file and mend, also for a table whose head lacks one of `columns`.
    """
    there(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        found = _parquet(path, columns)
    elif kind == ".csv":
        found = _csv(path, columns)
    elif kind in (".json", ".jsonl"):
        found = _json(path) if kind == ".json" else _lines(path)
    else:
        raise ValueError(f"{path}: {ONE_OF}; save it as one of these")
    empty = True
    for item in found:
        empty = False
        yield item
    if empty:
        raise ValueError(f"{path}: no rows in it")


def _lines(path: Path) -> Iterator[Item]:
    """JSON Lines: one object a line."""
    return ((f"{path}:{number}", item) for number, item in numbered_jsonl(path))


def _json(path: Path) -> Iterator[Item]:
    """A list of objects, or an object of objects by their ids, as MathVista and LogicVista have it."""
    whole = load_json(path)
    if isinstance(whole, dict):
        yield from ((f"{path}: item {name!r}", item) for name, item in whole.items())
    elif isinstance(whole, list):
        yield from ((f"{path}: row {number}", item) for number, item in enumerate(whole))
    else:
        raise ValueError(f"{path}: a list of rows is needed, not a {type(whole).__name__}")


def _csv(path: Path, columns: Collection[str] | None) -> Iterator[Item]:
    """Comma-separated values under one line of column names; every cell a string."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            names = rows.fieldnames or []
            if len(names) == 1 and (found := [said for mark, said in SEPARATORS.items() if mark in names[0]]):
                raise ValueError(f"{path}:1: {found[0]} stand between its columns; save it with commas")
            _lacks_none(path, columns, names)
            double = sorted({name for name in names if names.count(name) > 1})
            if double:
                raise ValueError(f"{path}:1: two columns are named {double[0]!r}; rename one")
            for item in rows:
                where = f"{path}:{rows.line_num}"
                if None in item or None in item.values():
                    many = "more" if None in item else "fewer"
                    yield where, ValueError(f"{many} cells than the {len(names)} columns; quote cells with commas")
                else:
                    yield where, item
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 after line {rows.line_num}; save the file as UTF-8") from error
        except csv.Error as error:
            raise ValueError(f"{path}:{rows.reader.line_num}: not CSV ({error}); mend its quotes") from error


def _parquet(path: Path, columns: Collection[str] | None) -> Iterator[Item]:
    """A Parquet file, row group by row group."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{path}: a Parquet file needs pyarrow; pip install -e '.[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _lacks_none(path, columns, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=None if columns is None else sorted(columns)):
                for item in batch.to_pylist():
                    yield f"{path}: row {number}", item
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a whole Parquet file ({error}); write or download it again") from error


def _lacks_none(path: Path, columns: Collection[str] | None, names: Sequence[str]) -> None:
    """Raise ValueError where a table's head, if it has one, lacks one of the columns."""
    if names and (missing := sorted(set(columns or ()) - set(names))):
        raise ValueError(f"{path}: no column {missing[0]!r} among {', '.join(names)}; {MEND_COLUMNS}")


def fields_of(item: Any) -> dict[str, Any]:
    """The fields of an item. Raises ValueError for one that has none, or not those of its table."""
    if isinstance(item, ValueError):
        raise item
    if not isinstance(item, dict):
        raise ValueError(f"a {type(item).__name__} where an object with named fields is needed")
    return item


def field(item: dict[str, Any], *names: str) -> Any:
    """The value of the first of these names that the item has. Raises ValueError when it has none."""
    for name in names:
        if name in item:
            return item[name]
    raise ValueError(f"no {' or '.join(names)}")


def text(value: Any) -> str:
    """A cell as text: strings as they are, nothing as "", lists as JSON, numbers and dates as written.

    Raises ValueError for half a character, which JSON can spell and no file can hold, and for bytes.
    """
    if isinstance(value, str):
        said = value
    elif isinstance(value, PLAIN):
        said = str(value)
    else:
        said = "" if value is None else json.dumps(value, ensure_ascii=False, default=_written)
    if not said.isascii():
        said.encode()
    return said


def _written(value: Any) -> str:
    """What JSON has no word for, of a list in a Parquet cell."""
    if isinstance(value, PLAIN):
        return str(value)
    raise ValueError(f"{type(value).__name__} where text is needed")


def pictures(value: Any) -> tuple[str, ...]:
    """File names of a cell that holds one, several as a list, or none. Raises ValueError for anything else."""
    if value is None or value == "":
        return ()
    if isinstance(value, list):
        return tuple(name for each in value for name in pictures(each))
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return (text(value["path"]),)  # the picture's bytes beside its name, as Parquet files of data sets have it
    if isinstance(value, str):
        return (text(value),)
    what = "a picture's bytes" if isinstance(value, dict | bytes) else f"{value!r}"
    raise ValueError(
        f"{what} where a picture's file name is needed; write the picture to the picture folder and name it"
    )
