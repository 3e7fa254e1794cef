"""Sources: one file a public format, each reading a list of annotations into `vlmr1.rows.Row`s, one after another.

A reader only reads: it judges nothing, so that validation can name what is wrong by row. It holds no more of a list in
memory than the format forces it to. What is drawn (negatives, the order of names) comes from the row's own seed, so
that a row does not depend on its neighbours.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from vlmr1.rows import Row
from vlmr1.settings import SourceSpec


def read_source(spec: SourceSpec, root: Path) -> Iterator[Row]:
    """The rows of a source below the data root. Raises ValueError or FileNotFoundError naming file, row and mend."""
    module = importlib.import_module(f"vlmr1.sources.{spec.format}")  # a format's reader is the module of its name
    return module.read_rows(spec, root)
