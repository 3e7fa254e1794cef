"""MathVision: one question a line, `<image1>` where its picture stands, options that are letters drawn in it or texts.

A report tells the sixteen subjects apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row
from vlmr1.settings.sources import Questions
from vlmr1.sources.lists import pictures, text
from vlmr1.sources.questions import Question, read_questions, tidy


def read_rows(spec: Questions, root: Path) -> Iterator[Row]:
    """Every question of the list, in its order."""
    return read_questions(spec, root, _question)


def _question(item: dict[str, Any]) -> Question:
    choices = tuple(text(choice) for choice in item["options"] or ())
    return Question(
        text=item["question"],
        answer=text(item["answer"]).strip(),
        images=pictures(item["image"]),
        chosen=bool(choices),
        choices=choices,
        kind=tidy(item.get("subject")),
    )
