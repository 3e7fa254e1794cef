"""Lists as files: the items of a .json, .jsonl, .csv or .parquet file, one after another, each with its place.

Lines, rows and row groups are streamed; a .json file is read whole, as its form forces. An item is a dict of its
fields, its place what an error says of it: `file:line`, or `file: row 5`. Left out on purpose: pictures inside a list
(base64, bytes), which would be read again at every turn; they belong in the picture folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vlmr1.sample import numbered_jsonl
from vlmr1.sources.reading import NOT_FOUND

Item = tuple[str, dict[str, Any]]  # its place, its fields
ROWS_AT_ONCE = 1024  # of a Parquet file


def items(path: Path, columns: Collection[str] | None = None) -> Iterator[Item]:
    """The items of a list, in its order. Of a Parquet file only `columns` are read, which it must have.

    Raises FileNotFoundError, or ValueError naming file, line or row, and the mend.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {NOT_FOUND}")
    kind = path.suffix.lower()
    if kind == ".parquet":
        found = _parquet(path, columns)
    elif kind in READERS:
        found = READERS[kind](path)
    else:
        raise ValueError(
            f"{path}: a list ends in {', '.join(READERS)} or .parquet; rename it, or save it as one of these"
        )
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
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        mend = "; if it holds one object a line, end its name in .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(f"{path}: not JSON in UTF-8 ({error}){mend}") from error
    if isinstance(whole, dict):
        for name, item in whole.items():
            where = f"{path}: item {name!r}"
            yield where, _fields(where, item)
    elif isinstance(whole, list):
        for number, item in enumerate(whole):
            where = f"{path}: row {number}"
            yield where, _fields(where, item)
    else:
        raise ValueError(f"{path}: a list of rows is needed, not a {type(whole).__name__}")


def _csv(path: Path) -> Iterator[Item]:
    """Comma-separated values under one line of column names; every cell a string."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            names = rows.fieldnames or []
            double = sorted({name for name in names if names.count(name) > 1})
            if double:
                raise ValueError(f"{path}:1: two columns are named {double[0]!r}; rename one")
            for item in rows:
                where = f"{path}:{rows.line_num}"
                if None in item or None in item.values():
                    many = "more" if None in item else "fewer"
                    raise ValueError(f"{where}: {many} cells than the {len(names)} columns; quote cells with commas")
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
            names = file.schema_arrow.names
            if missing := sorted(set(columns or ()) - set(names)):
                raise ValueError(f"{path}: no column {missing[0]!r} among {', '.join(names)}; mend columns in params")
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=None if columns is None else sorted(columns)):
                for item in batch.to_pylist():
                    yield f"{path}: row {number}", item
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a whole Parquet file ({error}); write or download it again") from error


def _fields(where: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: a {type(item).__name__} where an object with named fields is needed")
    return item


READERS = {".json": _json, ".jsonl": _lines, ".csv": _csv}


def field(item: dict[str, Any], *names: str) -> Any:
    """The value of the first of these names that the item has. Raises ValueError when it has none."""
    for name in names:
        if name in item:
            return item[name]
    raise ValueError(f"no {' or '.join(names)}")


def text(value: Any) -> str:
    """A cell as text: strings as they are, nothing as "", lists as JSON, numbers as written.

    Raises ValueError for half a character, which JSON can spell and no file can hold.
    """
    said = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    if not said.isascii():
        said.encode()
    return said


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
