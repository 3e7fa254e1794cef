"""How a source's answers are distributed, and what it would score to say the same thing always.

A policy that has learned anything stands above these. Left out on purpose: baselines that look at the picture.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from vlmr1.boxes import Box, Size, iou
from vlmr1.rows import Row
from vlmr1.tasks.rec import HIT_IOU

KEPT = 20_000  # boxes a source, from which the constant box is made
SHOWN = 8  # answers or labels
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Balance:
    """Counts of one source."""

    def __init__(self) -> None:
        self.task = ""
        self.rows = self.empty = 0
        self.answers: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.boxes: list[Box] = []  # of rec, in shares of the picture

    def add(self, row: Row, size: Size | None = None) -> None:
        """Count a row; `size` is its first picture's, where somebody looked, else the declared one serves."""
        self.task = row.task
        if row.fault:  # what it asks and answers is unknown
            return
        self.rows += 1
        self.kinds.update([row.kind] if row.kind else [])
        size = size or (row.sizes[0] if row.sizes else None)
        self.labels.update(row.labels)
        if row.task in ("rec", "ovd"):
            self.empty += not row.boxes
        else:
            self.answers[row.answer.strip().lower()] += 1
        if row.task == "rec" and row.boxes and size and len(self.boxes) < KEPT:
            (w, h), (x0, y0, x1, y1) = size, row.boxes[0]
            if w > 0 and h > 0:
                self.boxes.append((x0 / w, y0 / h, x1 / w, y1 / h))

    def summary(self) -> dict[str, Any]:
        """Plain data: `constant` has what the best constant answers would score, each in [0, 1]."""
        found: dict[str, Any] = {"task": self.task, "rows": self.rows, "constant": self._constants()}
        if self.task in ("rec", "ovd"):
            found["without_target"] = self.empty
        if self.labels:
            found["labels"] = {"different": len(self.labels), "most": dict(self.labels.most_common(SHOWN))}
        if self.answers:
            found["answers"] = {"different": len(self.answers), "most": dict(self.answers.most_common(SHOWN))}
        if self.kinds:
            found["kinds"] = dict(self.kinds.most_common())
        return found

    def _constants(self) -> dict[str, float]:
        if not self.rows:
            return {}
        if self.answers:
            answer, count = self.answers.most_common(1)[0]
            return {f"always {answer!r}": count / self.rows}
        found = {"always None": self.empty / self.rows}
        if self.boxes:
            middle: Any = tuple(statistics.median(box[i] for box in self.boxes) for i in range(4))
            share = 1 - self.empty / self.rows
            for name, box in (("the whole picture", WHOLE), ("the median box", middle)):
                hits = sum(iou(box, true) > HIT_IOU for true in self.boxes)
                found[f"{name}, hits"] = share * hits / len(self.boxes)
        return found
