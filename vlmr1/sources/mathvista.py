"""MathVista: an object of questions by their ids, or the same as a list, lines or Parquet.

Numbers have a unit and, if decimals, a precision, which the question then says; the answer of a choice is its text in
the list and its letter in the row. A report tells the five tasks apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row
from vlmr1.settings.sources import Questions
from vlmr1.sources.lists import pictures, text
from vlmr1.sources.questions import Question, letter_of, read_questions, tidy

LIST = "(Answer with a list, e.g. [1, 2, 3].)"


def read_rows(spec: Questions, root: Path) -> Iterator[Row]:
    """Every question of the list, in its order."""
    return read_questions(spec, root, _question)


def _question(item: dict[str, Any]) -> Question:
    about = item.get("metadata") or {}
    chosen = item["question_type"] == "multi_choice"
    choices = tuple(text(choice) for choice in item.get("choices") or ())
    answer = text(item["answer"]).strip()
    images = pictures(item["image"])
    sized = len(images) == 1 and "img_width" in about and "img_height" in about
    return Question(
        text=item["question"],
        answer=letter_of(answer, choices) if chosen else answer,
        images=images,
        chosen=chosen,
        choices=choices if chosen else (),
        unit=tidy(item.get("unit")),
        notes=_notes(item),
        sizes=((int(about["img_width"]), int(about["img_height"])),) if sized else (),
        kind=tidy(about.get("task")),
    )


def _notes(item: dict[str, Any]) -> tuple[str, ...]:
    if item["answer_type"] == "list":
        return (LIST,)
    if item["answer_type"] != "float" or item.get("precision") is None:
        return ()
    places = int(item["precision"])
    return (f"(Round to {places} decimal place{'s' if places != 1 else ''}.)",)
