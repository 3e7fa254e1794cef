"""What the benchmarks of questions with checkable answers share: a question becomes a `Row` in one way.

The text is all that is asked: choices below it as lines "(A) …" where the benchmark lists them, its unit and precision
where it fixes them. The answer is the letter of a choice, or the value as written with its unit. Left out on purpose:
the hints and prompts that benchmarks print around a question; how to answer is the task's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vlmr1.boxes import Size
from vlmr1.rows import Row, unread
from vlmr1.sample import PLACE
from vlmr1.settings.sources import Questions
from vlmr1.sources.lists import fields_of, items, text

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_NUMBERED_PLACE = re.compile(r"<image(\d+)>")


@dataclass(frozen=True, slots=True)
class Question:
    """One question as its benchmark has it."""

    text: str
    answer: str  # of a choice its letter; else the value as written
    images: tuple[str, ...] = ()
    chosen: bool = False  # whether the answer is a letter, or several
    choices: tuple[str, ...] = ()  # to be written below the text; none where it has them already
    unit: str = ""
    notes: tuple[str, ...] = ()  # what else the question fixes, e.g. its precision
    sizes: tuple[Size, ...] = ()
    group: str = ""
    kind: str = ""


def read_questions(spec: Questions, root: Path, question: Callable[[dict[str, Any]], Question]) -> Iterator[Row]:
    """The rows of a list; `question` reads one item, with KeyError, TypeError or ValueError for what it lacks.

    Raises ValueError when `only` names a kind, or a part of one like the level of "algebra/school", that no row has.
    """
    path = root / spec.annotations
    kinds: set[str] = set()
    for number, (where, item) in enumerate(items(path)):
        try:
            row = _row(number, question(fields_of(item)), spec.reward)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            said = f"no {error.args[0]}" if isinstance(error, KeyError) else error
            reward = "math" if spec.reward == "auto" else spec.reward
            yield unread(number, "math", reward, ValueError(f"{where}: {said}; mend or remove the row"))
            continue
        kinds |= {row.kind, *row.kind.split("/")}
        if spec.only is None or spec.only in (row.kind, *row.kind.split("/")):
            yield row
    if spec.only is not None and spec.only not in kinds:
        raise ValueError(f"{path}: no row is of kind {spec.only!r}; it has {', '.join(sorted(kinds))}")


def letter_of(answer: str, choices: tuple[str, ...]) -> str:
    """The letter of the choice that the answer repeats; the answer as it is where none does, for validation to name."""
    return ascii_uppercase[choices.index(answer)] if answer in choices[: len(ascii_uppercase)] else answer


def reward_of(question: Question) -> str:
    """`reward: auto`: mcq for choices, numeric for a number, math for the rest."""
    return automatic(question.chosen, question.answer)


def automatic(chosen: bool, answer: str) -> str:
    """The same of an answer that is the letter of a choice or not."""
    if chosen:
        return "mcq"
    return "numeric" if _NUMBER.fullmatch(answer) else "math"


def _row(number: int, question: Question, reward: str) -> Row:
    unit = (f"(Unit: {question.unit})",) if question.unit else ()
    asked = "\n".join([tidy(question.text), *_choices(question.choices), *unit, *question.notes])
    asked, images = _placed(asked, question.images)
    return Row(
        number,
        images,
        question.sizes,
        "math",
        reward_of(question) if reward == "auto" else reward,
        text=asked,
        answer=f"{question.answer} {question.unit}" if question.unit else question.answer,
        group=question.group,
        kind=question.kind,
    )


def tidy(value: Any) -> str:
    """A cell as text, without blanks at its ends and with plain line ends."""
    return text(value).replace("\r\n", "\n").strip()


def _choices(choices: tuple[str, ...]) -> list[str]:
    """Lines "(A) …"; "(A)" alone where the choice says no more than its letter, being drawn in the picture."""
    if len(choices) > len(ascii_uppercase):
        raise ValueError(f"{len(choices)} choices, more than there are letters")
    pairs = zip(ascii_uppercase, choices, strict=False)
    return [f"({letter})" if choice.strip(" ().") == letter else f"({letter}) {choice}" for letter, choice in pairs]


def _placed(asked: str, images: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Numbered places made `<image>`, pictures in the order of their places; unmentioned pictures stand before.

    MathVision draws the several pictures of a question into one file, each under its name `<image1>:`. Then the names
    stay in the text and the one picture stands before it. A place without a picture stays, for validation to name.
    """
    numbers = [int(match.group(1)) for match in _NUMBERED_PLACE.finditer(asked)]
    if len(images) == 1:
        return (asked if len(set(numbers)) > 1 else _NUMBERED_PLACE.sub(PLACE, asked, count=1)), images
    mentioned = tuple(images[n - 1] for n in numbers if 1 <= n <= len(images))
    others = tuple(image for image in images if image not in mentioned) if mentioned else ()
    return PLACE * len(others) + _NUMBERED_PLACE.sub(PLACE, asked), others + mentioned or images
