"""Sources: one file for each public format, each reading a list of annotations into plain rows.

A reader only reads: it judges nothing, so that validation can name what is wrong by row.
Left out on purpose: readers that stream, and formats of other tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlmr1.boxes import Box, Size
from vlmr1.settings import SourceSpec


@dataclass(frozen=True)
class Row:
    """One expression as annotated."""

    row: int  # 0-based place in the list: the name by which reports and samples call it
    image: str  # relative to the source's picture folder
    size: Size | None  # (width, height) as declared by the list
    expression: str
    box: Box | None  # None for an expression without a target


def read_source(spec: SourceSpec, root: Path) -> list[Row]:
    """The rows of a source below the data root. Raises ValueError or FileNotFoundError naming file and mend."""
    from vlmr1.sources import rec_json, refcoco

    readers: dict[str, Callable[[SourceSpec, Path], list[Row]]] = {
        "refcoco": refcoco.read_rows,
        "rec_json": rec_json.read_rows,
    }
    return readers[spec.format](spec, root)
