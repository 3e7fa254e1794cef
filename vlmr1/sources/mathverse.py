"""MathVerse: one problem in up to six versions, from all in the text to all in the picture; choices in the text.

The versions of a problem are a group, the version is what a report tells apart; MathVerse_MINI_Vision_Only is
`only: Vision Only`, where the question is read from the picture and the text only says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row
from vlmr1.settings.sources import Questions
from vlmr1.sources.lists import pictures, text
from vlmr1.sources.questions import Question, read_questions, tidy

IN_PICTURE = "Answer the question in the picture."
IN_PICTURE_CHOICES = "Answer the question in the picture with the letter of the right choice."


def read_rows(spec: Questions, root: Path) -> Iterator[Row]:
    """Every question of the list, in its order."""
    return read_questions(spec, root, _question)


def _question(item: dict[str, Any]) -> Question:
    version = tidy(item["problem_version"])
    chosen = item["question_type"] == "multi-choice"
    asked = tidy(item["question"])
    if version == "Vision Only":
        asked = IN_PICTURE_CHOICES if chosen else IN_PICTURE
    return Question(
        text=asked,
        answer=text(item["answer"]).strip(),
        images=pictures(item["image"]),
        chosen=chosen,
        group=text(item["problem_index"]),
        kind=version,
    )
