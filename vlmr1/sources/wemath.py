"""We-Math: problems of two or three steps, each step a question of its own beside the whole; always choices.

The questions of a problem are a group, and `key` (2steps_1, 2steps_2, 2steps_multi, 3steps_1, …) is what a report
tells apart: its four-way score needs both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vlmr1.rows import Row
from vlmr1.settings.sources import Questions
from vlmr1.sources.lists import field, pictures, text
from vlmr1.sources.questions import Question, read_questions, tidy

_OPTION = re.compile(r"(?:^|[;；\n])\s*([A-Z])[.．、:]\s*")  # "A. 12; B. 10; …"


def read_rows(spec: Questions, root: Path) -> Iterator[Row]:
    """Every question of the list, in its order."""
    return read_questions(spec, root, _question)


def _question(item: dict[str, Any]) -> Question:
    choices, below = _options(tidy(item["option"]))
    return Question(
        text=item["question"],
        answer=text(item["answer"]).strip(),
        images=pictures(field(item, "image_path", "image")),
        chosen=True,
        choices=choices,
        notes=below,
        group=text(item["ID"]),
        kind=text(item["key"]),
    )


def _options(option: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(choices, ()); or ((), the string as it stands) where it is not a run of lettered choices from A on."""
    _, *parts = _OPTION.split(option)
    letters, choices = parts[0::2], tuple(part.strip(" ;；\n") for part in parts[1::2])
    if not choices or "".join(letters) != ascii_uppercase[: len(letters)]:
        return (), (option,)
    return choices, ()
