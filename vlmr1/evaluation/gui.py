"""GUI defects: accuracy by the exact label, precision and recall of each label, and what always naming one would get.

Labels are compared as the task's reward does, case, line breaks and final dots aside; an answer that is none of the
labels is wrong and of no class. With two labels in about equal numbers, which is all the published list has, an
accuracy near one half is no skill: `majority_baseline` is the share of the label that stands there most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmr1.answers.words import plain
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.questions import proportion
from vlmr1.tasks.gui import DEFECTS


def gui(truths: Sequence[str], said: Sequence[str | None]) -> Result:
    """Figures of true labels and answers' texts, None where there is no prediction."""
    true = [plain(label) for label in truths]
    spelled = {plain(label): label for label in (*DEFECTS, *truths)}
    named = [None if text is None or plain(text) not in spelled else plain(text) for text in said]
    right = [a == b for a, b in zip(named, true, strict=True)]
    figures: dict[str, Any] = proportion(right) | {"missing": said.count(None)}
    figures["unknown_labels"] = sum(text is not None and name is None for text, name in zip(said, named, strict=True))
    label, most = Counter(true).most_common(1)[0]
    figures |= {"majority_baseline": most / len(true), "majority_label": spelled[label]}
    figures["per_class"] = {
        spelled[label]: _class([name == label for name in named], [name == label for name in true])
        for label in spelled
        if label in true or label in named
    }
    return Result(figures, "accuracy", items=np.array(right, dtype=np.float64))


def _class(named: list[bool], true: list[bool]) -> dict[str, Any]:
    """Precision and recall of one label with n and interval; null where nothing is named so, or nothing is so."""
    both = [a and b for a, b in zip(named, true, strict=True)]
    found: dict[str, Any] = {}
    for name, of in (("precision", named), ("recall", true)):
        share = (
            proportion([hit for hit, counts in zip(both, of, strict=True) if counts], name)
            if any(of)
            else {name: None, "n": 0}
        )
        found |= {f"{name}_n": share.pop("n")} | share
    return found
