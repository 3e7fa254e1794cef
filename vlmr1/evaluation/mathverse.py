"""MathVerse: accuracy over a list of versions of problems, by version, subject and kind of question.

A choice by its letter. Any other answer officially goes to a language model, after equality of strings: what no rule
finds equal needs a judge, two numbers that differ aside. `vision_only` is the accuracy over the version Vision Only,
the one that OpenCompass' mean takes (MathVerse_MINI_Vision_Only, 788 questions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlmr1.answers import Answer
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.questions import Answered, Question, Verdict, accuracy, field, proportion
from vlmr1.evaluation.verdicts import by_expression, by_letter
from vlmr1.rewards.judge import Judge

TOLERANCE = 1e-9
VISION_ONLY = "Vision Only"


def named(fields: Mapping[str, Any]) -> str | None:
    return str(fields["sample_index"]) if "sample_index" in fields else None


def verdict(said: Answer, question: Question) -> Verdict:
    """By letter, or by equality."""
    if question.fields["question_type"] == "multi-choice":
        return by_letter(said, question)
    return by_expression(said, question.truth, TOLERANCE)


def result(answered: Sequence[Answered], judge: Judge | None) -> Result:
    """Accuracy, and as the main number that of Vision Only where the list has it."""
    parts = {"version": field("problem_version")}
    parts |= {name: field(name) for name in ("subject", "subfield", "question_type")}
    found = accuracy(answered, parts, judge)
    seen = [one.right for one in answered if one.question.row.kind == VISION_ONLY]
    if not seen:
        return found
    figures = proportion(seen, "vision_only")
    figures["vision_only_n"] = figures.pop("n")
    return Result(found.figures | figures, "vision_only", items=np.array(seen, dtype=np.float64))
