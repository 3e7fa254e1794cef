"""Rewards that compare words and numbers. Every value is 0 or 1, that of `default_lenient` between them.

They read the answer block, and where there is none what stands in its place (`Answer.said`); parsed is whether what
they look for could be read. Left out on purpose: `llm`, which asks a judge (`vlmr1.rewards.judge`).
"""

from __future__ import annotations

from collections.abc import Mapping

from vlmr1.answers import Answer
from vlmr1.answers.choices import read_choice
from vlmr1.answers.numbers import read_number
from vlmr1.answers.units import same_unit
from vlmr1.answers.words import plain, read_yes_no
from vlmr1.rewards import Reward
from vlmr1.rewards.mathematics import equal, percent_of, same_number

LONGEST_RATIO = 2_000  # characters that `ratio` compares


def all_match(said: Answer, truth: str) -> Reward:
    """1 where the answer is the truth, case, line breaks and final dots aside."""
    right = plain(said.said) == plain(truth)
    return Reward(float(right), bool(said.said.strip()), "the same text" if right else "another text")


def mcq(said: Answer, truth: str, choices: Mapping[str, str] | None = None) -> Reward:
    """1 where the letter of the answer is the true one; `choices` maps letters to texts, where they are known."""
    letter, how = read_choice(said.said, choices)
    if letter is None:
        return Reward(0.0, False, how)
    return _same(letter, read_choice(truth, choices)[0] or plain(truth), how)


def yes_no(said: Answer, truth: str) -> Reward:
    """1 where the first of the words yes and no in the answer is the truth's; 0 where there is none."""
    word, how = read_yes_no(said.said)
    if word is None:
        return Reward(0.0, False, how)
    return _same(word, read_yes_no(truth)[0] or plain(truth), how)


def numeric(said: Answer, truth: str) -> Reward:
    """1 where the answer is the true number: 10 for 10 cm, but not 10 mm; 50 % for 0.5; \\frac{1}{2} for 0.5."""
    number, how = read_number(said.said)
    true = read_number(truth)[0]
    if number is None or true is None:
        return Reward(0.0, number is not None, how if true is not None else f"the truth {truth[:60]!r} is no number")
    if number.unit and true.unit and not same_unit(number.unit, true.unit):
        return Reward(0.0, True, f"{number.unit} where {true.unit} is right")
    right = same_number(number.value, true.value) or percent_of(number.value, number.unit, true.value, true.unit)
    return Reward(float(right), True, f"{number.value:g} where {true.value:g} is right")


def math(said: Answer, truth: str) -> Reward:
    """1 where the answer equals the truth as mathematics (`vlmr1.rewards.mathematics`)."""
    right, how = equal(said.said.strip(), truth.strip())
    return Reward(float(right), bool(said.said.strip()), how)


def default(said: Answer, truth: str, choices: Mapping[str, str] | None = None) -> Reward:
    """`math`; and where that finds no equality and the truth is a letter of a choice, `mcq`."""
    first = math(said, truth)
    true = truth.strip(" ().").upper()
    if first.value or len(true) != 1 or not true.isalpha():
        return first
    return mcq(said, truth, choices)


def default_lenient(said: Answer, truth: str, choices: Mapping[str, str] | None = None) -> Reward:
    """`default`, but a wrong answer in words earns its likeness to the truth, in [0, 1], as the original has it."""
    first = default(said, truth, choices)
    if first.value or not first.parsed or read_number(truth)[0] is not None or len(truth.strip(" ().")) == 1:
        return first
    value = ratio(plain(said.said), plain(truth))
    return Reward(value, True, f"like the truth by {value:.3f}")


def ratio(a: str, b: str) -> float:
    """Likeness of two strings in [0, 1]: 2·(longest common subsequence)/(both lengths), as Levenshtein's `ratio`.

    0 where one is longer than 2,000 characters. Bit-parallel, after Hyyrö (2004).
    """
    if max(len(a), len(b)) > LONGEST_RATIO:
        return 0.0
    if not a or not b:
        return float(a == b)
    places: dict[str, int] = {}
    for i, sign in enumerate(b):
        places[sign] = places.get(sign, 0) | 1 << i
    full = (1 << len(b)) - 1
    row = full
    for sign in a:
        shared = row & places.get(sign, 0)
        row = (row + shared | row - shared) & full
    return 2 * (full & ~row).bit_count() / (len(a) + len(b))


def _same(read: str, true: str, how: str) -> Reward:
    right = read.lower() == true.lower()
    return Reward(float(right), True, f"{read} ({how})" if right else f"{read} ({how}) where {true[:60]} is right")
