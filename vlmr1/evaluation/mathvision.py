"""MathVision (MATH-V): accuracy over 3,040 competition questions, by subject, level and kind of question.

A choice by its letter; any other answer by equality, numbers to 1e-6 as in VLMEvalKit. The authors' own code rounds
numbers to two decimals; `accuracy_two_decimals` is by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vlmr1.answers import Answer
from vlmr1.answers.numbers import read_number
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.questions import Answered, Question, Verdict, accuracy, field, proportion
from vlmr1.evaluation.verdicts import by_expression, by_letter
from vlmr1.rewards.judge import Judge

TOLERANCE = 1e-6


def named(fields: Mapping[str, Any]) -> str | None:
    return str(fields["id"]) if "id" in fields else None


def verdict(said: Answer, question: Question) -> Verdict:
    """By letter, or by equality."""
    return by_letter(said, question) if _chosen(question) else by_expression(said, question.truth, TOLERANCE)


def result(answered: Sequence[Answered], judge: Judge | None) -> Result:
    """Accuracy, and what it is with numbers rounded to two decimals."""
    parts = {"subject": field("subject"), "level": field("level"), "type": _type}
    found = accuracy(answered, parts, judge)
    figures = proportion([one.right or _rounds_to(one) for one in answered], "accuracy_two_decimals")
    return replace(found, figures=found.figures | figures)


def _rounds_to(one: Answered) -> bool:
    if one.said is None or _chosen(one.question):
        return False
    number, true = read_number(one.said.said)[0], read_number(one.question.truth)[0]
    return number is not None and true is not None and round(number.value, 2) == round(true.value, 2)


def _chosen(question: Question) -> bool:
    return bool(question.fields.get("options"))


def _type(question: Question) -> str:
    return "choice" if _chosen(question) else "free"
