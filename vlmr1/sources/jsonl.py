"""The original project's training JSONL, which is also what conversion writes: {image, conversations, …} a line.

`image` is a path, a list of them or absent; the first two `conversations` are the question and the true answer.
`accu_reward_method`, `task`, `size`, `group` and `kind` count where a line has them; the source names the task and the
reward of lines that do not. Boxes are in pixels, or by the source's `frame` in thousandths, as for InternVL.

    rec    the text is the expression inside the question; the answer a box `[x0, y0, x1, y1]`, or None
    ovd    the names asked for are those inside the question, `text` holds one of another wording; the answer is a
           (fenced) JSON list of {bbox_2d, label}, or None
    other  question and answer stay text, with `<image>` where it stands inside the question

A file that conversion wrote gives back the rows it was made of, at the places they have in that file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmr1.boxes import Box, Size, rescale
from vlmr1.rows import Row, unread
from vlmr1.sample import PLACE, unfenced, untagged
from vlmr1.settings.sources import Jsonl
from vlmr1.sources.reading import (
    THOUSANDTHS,
    At,
    corners,
    expression_of,
    json_lines,
    measured,
    numbers,
    shown,
    size_of_picture,
    take,
    take_texts,
)
from vlmr1.tasks import TASKS

_ASKED = re.compile(r".*detect the following objects:\s*(.*)\.\s*Output each .*", re.DOTALL)


def read_rows(spec: Jsonl, root: Path) -> Iterator[Row]:
    """Every line, in its order."""
    path = root / spec.annotations
    task = spec.task or "rec"  # of a malformed line, of which it does not matter
    for number, (line, item) in enumerate(json_lines(path)):
        try:
            with At(path, "line", line):
                row = _row(number, item, spec, root / spec.images)
        except ValueError as error:
            row = unread(number, task, spec.reward or TASKS[task].METHODS[0], error)
        yield row


def _row(number: int, item: dict[str, Any], spec: Jsonl, folder: Path) -> Row:
    images, sizes = _images(item), _sizes(item)
    question, answer = _conversation(item)
    if question.startswith(PLACE * len(images)) and PLACE not in question.removeprefix(PLACE * len(images)):
        question = question.removeprefix(PLACE * len(images))  # pictures that stand before the text go unsaid
    task = _named(item, "task", spec.task)
    if task not in TASKS:
        raise ValueError(f"task {shown(task)} is none of {', '.join(TASKS)}")
    reward = _named(item, "accu_reward_method", spec.reward or TASKS[task].METHODS[0])
    group, kind = _optional(item, "group"), _optional(item, "kind")
    if task not in ("rec", "ovd"):
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        text.encode()  # half a character, which JSON can spell and no file hold, is a ValueError here
        return Row(number, images, sizes, task, reward, question, answer=text, group=group, kind=kind)
    boxes, labels = _truth(answer, task)
    if boxes and spec.frame == "thousandths":
        if len(images) != 1:
            raise ValueError(f"boxes in thousandths need one picture, not {len(images)}")
        sizes = sizes or (size_of_picture(folder, images[0]),)
        boxes = tuple(rescale(box, THOUSANDTHS, sizes[0]) for box in boxes)
    if task == "rec":
        return Row(number, images, sizes, task, reward, expression_of(question), boxes, group=group, kind=kind)
    asked = _asked(question)
    text = "" if asked else question
    return Row(number, images, sizes, task, reward, text, boxes, labels, asked, group=group, kind=kind)


def _images(item: dict[str, Any]) -> tuple[str, ...]:
    value = item.get("image")
    if value is None:
        return ()
    return (take(item, "image", str),) if isinstance(value, str) else tuple(take_texts(item, "image"))


def _sizes(item: dict[str, Any]) -> tuple[Size, ...]:
    sizes = []
    for pair in take(item, "size", list) if item.get("size") is not None else []:
        width, height = numbers(pair, 2, "size")
        if not (width.is_integer() and height.is_integer()):
            raise ValueError(f"size {shown(pair)} is not two whole numbers")
        sizes.append(measured(int(width), int(height)))
    return tuple(sizes)


def _conversation(item: dict[str, Any]) -> tuple[str, Any]:
    """The question, and the answer as text without tags, or the value that stands in its place."""
    turns = take(item, "conversations", list)
    if len(turns) < 2:
        raise ValueError(f"conversations has {len(turns)} turns where question and answer are needed")
    question = take(turns[0], "value", str)
    if not isinstance(turns[1], dict) or "value" not in turns[1]:
        raise ValueError("the second of conversations has no value")
    answer = turns[1]["value"]
    return question, untagged(answer) if isinstance(answer, str) else answer


def _named(item: dict[str, Any], key: str, of_source: str | None) -> str:
    """What the line says, else what the source says."""
    if item.get(key) is not None:
        return take(item, key, str)
    if of_source is None:
        raise ValueError(f"no {key}, and the source names none")
    return of_source


def _optional(item: dict[str, Any], key: str) -> str:
    return take(item, key, str) if item.get(key) is not None else ""


def _truth(answer: Any, task: str) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Boxes and labels of an answer. Raises ValueError for what is no answer of the task."""
    value = answer
    if isinstance(answer, str):
        if answer.strip() in ("None", "null"):
            return (), ()
        try:
            value = json.loads(unfenced(answer))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the answer {shown(answer)} is neither JSON nor None") from error
    if value in (None, []):
        return (), ()
    if task == "rec":
        return (corners(value, "the answer"),), ()
    if not isinstance(value, list):
        raise ValueError(f"the answer {shown(answer)} is no list of boxes with labels")
    boxes = tuple(corners(take({"box": one}, "box", dict).get("bbox_2d"), "bbox_2d") for one in value)
    return boxes, tuple(take(one, "label", str) for one in value)


def _asked(question: str) -> tuple[str, ...]:
    """The names inside a detection question, written as a JSON list or between commas; none in another wording."""
    found = _ASKED.fullmatch(question)
    if found is None:
        return ()
    if found[1].startswith("["):
        try:
            return tuple(take_texts({"asked": json.loads(found[1])}, "asked"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"the names asked for {shown(found[1])} are no JSON list") from error
    return tuple(found[1].split(", "))
