"""DynaMath: 501 questions in ten variants each; the worst case counts, in which all variants of a question are right.

A choice by its letter, a number within 1e-3, text by the truth being found in it, in the "short answer" of the
official JSON form where an answer has it. A question's name is qid_varid, e.g. 17_3; without `varid` the variants of a
question are numbered as they come, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vlmr1.answers import Answer
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.intervals import bootstrap_share
from vlmr1.evaluation.questions import Answered, Question, Verdict, accuracy, field, proportion
from vlmr1.evaluation.verdicts import UNTOLD, by_letter, by_number
from vlmr1.rewards.judge import Judge

TOLERANCE = 1e-3
_SHORT = re.compile(r"\"short answer\"\s*+:\s*+\"?+([^\"}\n]{0,400}+)")


def named(fields: Mapping[str, Any]) -> str | None:
    return f"{fields['qid']}_{fields['varid']}" if "qid" in fields and "varid" in fields else None


def verdict(said: Answer, question: Question) -> Verdict:
    """By letter, number or substring."""
    short = _SHORT.findall(said.said)
    said = replace(said, said=short[-1].strip()) if short else said
    kind = question.fields["answer_type"]
    if kind == "multiple choice":
        return by_letter(said, question)
    if kind == "float":
        return by_number(said, question.truth, TOLERANCE)
    if not said.said.strip():
        return UNTOLD
    return Verdict(question.truth.lower() in said.said.lower())


def result(answered: Sequence[Answered], judge: Judge | None) -> Result:
    """`worst_case`, the share of questions with every variant right, and `accuracy`, the average over all variants.

    Variants of a question are no independent trials: the interval of the average is over questions.
    """
    found = accuracy(answered, {name: field(name) for name in ("subject", "level", "answer_type")}, judge)
    groups: dict[str, list[bool]] = {}
    for one in answered:
        groups.setdefault(one.question.row.group, []).append(one.right)
    worst = [all(right) for right in groups.values()]
    shares = [sum(right) / len(right) for right in groups.values()]
    low, high = bootstrap_share(shares)
    figures = proportion(worst, "worst_case")
    figures |= {"questions": figures.pop("n"), "variants": max(map(len, groups.values()))}
    figures |= found.figures | {"accuracy_low": low, "accuracy_high": high}
    return Result(figures, "worst_case", items=np.array(worst, dtype=np.float64))
