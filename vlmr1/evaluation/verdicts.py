"""Rules by which an answer is right: a letter, a number, an expression. Pure; a rule that cannot tell says so."""

from __future__ import annotations

import re

from vlmr1.answers import Answer
from vlmr1.answers.choices import read_choice
from vlmr1.answers.numbers import read_number
from vlmr1.answers.units import same_unit
from vlmr1.answers.words import plain
from vlmr1.evaluation.questions import Question, Verdict
from vlmr1.rewards.mathematics import equal, percent_of

UNTOLD = Verdict(False, told=False)
_LETTER = re.compile(r"[A-Z]")


def by_letter(said: Answer, question: Question) -> Verdict:
    """The letter or letters of the choice, in any order. Untold where no letter can be read."""
    letters, _ = read_choice(said.said, question.choices)
    if letters is None:
        return UNTOLD
    return Verdict(letters == "".join(sorted(set(_LETTER.findall(question.truth.upper())))))


def by_number(said: Answer, truth: str, tolerance: float) -> Verdict:
    """A number no further from the true one than `tolerance`.

    Untold where the answer or the truth is no number, or where their units differ: benchmarks compare values alone,
    which another unit may or may not leave as they are.
    """
    number, true = read_number(said.said)[0], read_number(truth)[0]
    if number is None or true is None:
        return UNTOLD
    if number.unit and true.unit and not same_unit(number.unit, true.unit):
        return UNTOLD
    close = abs(number.value - true.value) <= tolerance
    return Verdict(close or percent_of(number.value, number.unit, true.value, true.unit))


def by_expression(said: Answer, truth: str, tolerance: float) -> Verdict:
    """The same text, number or expression. Untold where they differ and are not both numbers."""
    if plain(said.said) == plain(truth):
        return Verdict(True)
    number = by_number(said, truth, tolerance)
    if number.told:
        return number
    return Verdict(True) if said.said.strip() and equal(said.said.strip(), truth)[0] else UNTOLD
