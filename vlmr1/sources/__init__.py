"""Sources: one file a public format, each reading a list of annotations into `vlmr1.rows.Row`s, one after another.

A reader only reads: it judges nothing, so that validation can name what is wrong by row. An item that is malformed
becomes a row with a `fault`, and the rest of the list is read; what is wrong with a whole file is an error.
A reader holds no more of a list in memory than the format forces it to. What is drawn (negatives, the order of names)
comes from the row's own seed, so that a row does not depend on its neighbours.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from vlmr1.rows import Row
from vlmr1.settings import SourceSpec


def read_source(spec: SourceSpec, root: Path) -> Iterator[Row]:
    """The rows of a source below the data root, malformed ones with their `fault`.

    Raises ValueError or FileNotFoundError, naming file and mend, for a file that is missing or no such list.
    """
    module = importlib.import_module(f"vlmr1.sources.{spec.format}")  # a format's reader is the module of its name
    return module.read_rows(spec, root)


def whole(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, for who can do without none of them. Raises ValueError with the fault of the first malformed one."""
    for row in rows:
        if row.fault:
            raise ValueError(row.fault)
        yield row
