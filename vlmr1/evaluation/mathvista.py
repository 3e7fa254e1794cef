"""MathVista (testmini, 1,000 questions): accuracy, by task, kind of question and answer, category and grade.

A choice by its letter or its text; a whole or decimal number by equality of value, in the precision that the question
asks for; a list by its text. So VLMEvalKit compares once the answer is extracted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmr1.answers import Answer
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.questions import Answered, Question, Verdict, accuracy, field
from vlmr1.evaluation.verdicts import by_expression, by_letter, by_number
from vlmr1.rewards.judge import Judge

TOLERANCE = 1e-9  # of equal values, written differently


def named(fields: Mapping[str, Any]) -> str | None:
    return str(fields["pid"]) if "pid" in fields else None


def verdict(said: Answer, question: Question) -> Verdict:
    """By letter, number or text."""
    if question.fields["question_type"] == "multi_choice":
        return by_letter(said, question)
    if question.fields["answer_type"] in ("integer", "float"):
        return by_number(said, question.truth, TOLERANCE)
    return by_expression(said, question.truth, TOLERANCE)


def result(answered: Sequence[Answered], judge: Judge | None) -> Result:
    """Accuracy."""
    names = ("task", "question_type", "answer_type", "category", "grade")
    return accuracy(answered, {name: field(name) for name in names}, judge)
