"""LogicVista: an object of questions by their ids; choices in the text or the picture, some with several right ones.

A report tells the five skills apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row
from vlmr1.settings.sources import Questions
from vlmr1.sources.lists import field, pictures, text
from vlmr1.sources.questions import Question, read_questions, tidy


def read_rows(spec: Questions, root: Path) -> Iterator[Row]:
    """Every question of the list, in its order."""
    return read_questions(spec, root, _question)


def _question(item: dict[str, Any]) -> Question:
    skill = item.get("skill") or ""
    return Question(
        text=item["question"],
        answer=text(item["answer"]).strip(),
        images=pictures(field(item, "imagename", "image")),
        chosen=True,
        kind=", ".join(map(text, skill)) if isinstance(skill, list) else tidy(skill),
    )
