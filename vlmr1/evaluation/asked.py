"""Whether a prediction is about the question that its index names: what it repeats of it must be so of that question.

Rows of the evaluate stage carry the question's text, its pictures and its truth. An index says nothing by itself, so
that predictions for another list of the same length would pass without this. Left out on purpose: rows that repeat
nothing, and rows that name their question by its own id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vlmr1.boxes import Size, rescale
from vlmr1.sample import PLACE, untagged
from vlmr1.sources.reading import corners, numbers, shown


class Asked(NamedTuple):
    """A question as predictions may repeat it."""

    problem: str | None  # None where the list alone does not tell it
    images: tuple[str, ...]
    truth: str | None  # of a box the list of its corners in pixels of the picture, or None
    size: Size | None = None  # of the picture that a box stands on

    def check(self, row: Mapping[str, Any], name: str) -> None:
        """Raises ValueError where the row speaks of another question than this, which it calls `name`."""
        pairs = {"problem": self.problem, "image": ", ".join(self.images), "truth": self.truth}
        same = {"problem": self._same_problem, "image": self._same_images, "truth": self._same_truth}
        for key, ours in pairs.items():
            if row.get(key) and ours is not None and not same[key](row):
                said = f"{key} is {shown(row[key])}, of {name} in the annotations it is {shown(ours)}"
                raise ValueError(f"{said}: are these predictions for another list?")

    def _same_problem(self, row: Mapping[str, Any]) -> bool:
        """Whether one text stands in the other, for a prompt may be the question with something round it."""
        one, other = (
            " ".join(str(text).replace(PLACE, " ").split()).lower() for text in (self.problem, row["problem"])
        )
        return one in other or other in one

    def _same_images(self, row: Mapping[str, Any]) -> bool:
        """Whether the bare file names are the same; folders differ with the machine."""
        names = [row["image"]] if isinstance(row["image"], str) else row["image"]
        return isinstance(names, list) and [_bare(name) for name in names] == [_bare(name) for name in self.images]

    def _same_truth(self, row: Mapping[str, Any]) -> bool:
        """Whether the truths are equal, boxes but for rounding and for the size at which their picture was stored."""
        said = untagged(row["truth"]).strip() if isinstance(row["truth"], str) else json.dumps(row["truth"])
        if self.size is None or "None" in (said, self.truth):
            return said == (self.truth or "").strip()
        try:
            box = corners(json.loads(said), "truth")
            width, height = numbers((row.get("size") or [self.size])[0], 2, "size")
        except (ValueError, TypeError, LookupError):
            return False
        if min(width, height) < 1:
            return False
        carried = rescale(box, (width, height), self.size)  # type: ignore[arg-type]
        slack = 0.02 * max(1.0, self.size[0] / width, self.size[1] / height)  # a stored truth is rounded to 0.01
        return all(abs(a - b) <= slack for a, b in zip(carried, json.loads(self.truth or ""), strict=True))


def _bare(name: Any) -> str:
    return PurePosixPath(str(name)).name
