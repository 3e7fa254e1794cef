"""LogicVista: accuracy over 448 questions of choice, by skill and capability; several letters must all be named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmr1.answers import Answer
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.questions import Answered, Question, Verdict, accuracy, field
from vlmr1.evaluation.verdicts import by_letter
from vlmr1.rewards.judge import Judge


def named(fields: Mapping[str, Any]) -> str | None:
    return str(fields["id"]) if "id" in fields else None


def verdict(said: Answer, question: Question) -> Verdict:
    """By its letters, in any order."""
    return by_letter(said, question)


def result(answered: Sequence[Answered], judge: Judge | None) -> Result:
    """Accuracy."""
    names = ("skill", "broad_capability", "specific_capability")
    return accuracy(answered, {name: field(name) for name in names}, judge)
