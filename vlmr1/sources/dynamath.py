"""DynaMath: questions drawn anew several times, choices in the text.

The variants of a question are a group, for an answer counts in the worst case only if all are right. A report tells
subjects apart, and levels where the list has them: `kind` is "algebra" or "algebra/high school". The key names of the
published variant files (id, ground_truth) are read as well.
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
    return Question(
        text=item["question"],
        answer=text(field(item, "answer", "ground_truth")).strip(),
        images=pictures(item["image"]),
        chosen=item["answer_type"] == "multiple choice",
        group=text(field(item, "qid", "id")),
        kind="/".join(filter(None, (tidy(item.get("subject")), tidy(item.get("level"))))),
    )
