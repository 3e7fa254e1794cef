"""GUI defects in the original project's multi-image JSONL: two screenshots, the action between them in the prompt.

A line: {"id", "image": [before, after], "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}]}. The
prompt is kept as it is, `<image>` places with it; the answer is one of the defect labels, which the task knows and
validation checks. `accu_reward_method`, `group` and `kind` are read where a line has them. Left out on purpose:
display defects of a single screenshot, which are another question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.rows import Row, unread
from vlmr1.settings.sources import Gui
from vlmr1.sources.lists import field, fields_of, items, pictures, text

REWARD = "all_match"  # of lines that name none: the label, exactly


def read_rows(spec: Gui, root: Path) -> Iterator[Row]:
    """Every line of the list, in its order."""
    for number, (where, item) in enumerate(items(root / spec.annotations)):
        try:
            row = _row(number, fields_of(item))
        except ValueError as error:
            row = unread(number, "gui", REWARD, ValueError(f"{where}: {error}; mend or remove the row"))
        yield row


def _row(number: int, item: dict[str, Any]) -> Row:
    images = pictures(field(item, "image"))
    if len(images) != 2:
        raise ValueError(f"image: {len(images)} pictures where the screenshots before and after are needed")
    said = field(item, "conversations")
    if not isinstance(said, list) or len(said) < 2 or not all(isinstance(turn, dict) for turn in said[:2]):
        raise ValueError("conversations: a question and its answer are needed, each {from, value}")
    question, answer = (field(turn, "value") for turn in said[:2])
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError("conversations: value is not text")
    return Row(
        number,
        images,
        (),
        "gui",
        text(item.get("accu_reward_method")) or REWARD,
        text=text(question),
        answer=text(answer).strip(),
        group=text(item.get("group")),
        kind=text(item.get("kind")),
    )
