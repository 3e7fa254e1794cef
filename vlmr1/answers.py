"""One reading of a completion: text in, `Answer` out. Rewards and metrics both use it.

A completion is read once. Reading never raises and takes time linear in the text; what was wrong is said in
`problems`. Where a completion holds several answers the last block counts; inside it, boxes keep their order and
a task that wants one box takes the first, in training and in evaluation alike.
Left out on purpose: choices, numbers and repaired JSON, which arrive with the tasks that need them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from vlmr1.boxes import Box

# Possessive quantifiers: no backtracking, so no input makes the search slow.
_NUMBER = r"\s*+(-?+\d{1,12}+(?:\.\d{1,12}+)?+)\s*+"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_TAG = re.compile(r"<(/?)(think|answer)>")


@dataclass(frozen=True)
class Answer:
    """What a completion said. Boxes are in the frame the model speaks in (its family's), in order of appearance."""

    thinking: str | None
    text: str | None  # inside the last <answer>…</answer>; None without one
    boxes: tuple[Box, ...]  # ordered and non-empty boxes of `text`
    problems: tuple[str, ...]  # empty when the completion is think block, answer block and nothing else

    @property
    def box(self) -> Box | None:
        """The box that counts where a task wants one: the first."""
        return self.boxes[0] if self.boxes else None


def read(completion: str) -> Answer:
    """Read a completion, of which nothing is assumed but that it is text."""
    problems: list[str] = []
    tags = [(m.group(1) + m.group(2), m.start(), m.end()) for m in _TAG.finditer(completion)]
    if [name for name, _, _ in tags] != ["think", "/think", "answer", "/answer"]:
        found = " ".join(f"<{name}>" for name, _, _ in tags[:6]) or "none"
        problems.append(f"tags are not <think></think><answer></answer>: {found}")
    elif completion[: tags[0][1]].strip() or completion[tags[3][2] :].strip():
        problems.append("text outside the think and answer blocks")
    elif completion[tags[1][2] : tags[2][1]].strip():
        problems.append("text between the think and answer blocks")

    thinking = _last_block(completion, tags, "think")
    text = _last_block(completion, tags, "answer")
    if text is None:
        problems.append("no closed answer block")
        return Answer(thinking, None, (), tuple(problems))
    boxes, box_problems = _boxes(text)
    return Answer(thinking, text, boxes, tuple(problems + box_problems))


def _last_block(completion: str, tags: list[tuple[str, int, int]], name: str) -> str | None:
    """Text of the last `<name>…</name>`, or None."""
    for i in range(len(tags) - 1, 0, -1):
        if tags[i][0] == f"/{name}" and tags[i - 1][0] == name:
            return completion[tags[i - 1][2] : tags[i][1]]
    return None


def _boxes(text: str) -> tuple[tuple[Box, ...], list[str]]:
    """Every `[n, n, n, n]` of the text that is a box, and a word on each that is not."""
    good: list[Box] = []
    problems: list[str] = []
    for match in _BOX.finditer(text):
        x0, y0, x1, y1 = (float(n) for n in match.groups())
        if not all(math.isfinite(v) for v in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
            problems.append(f"box {match.group(0)[:60]} is empty or inverted")
        else:
            good.append((x0, y0, x1, y1))
    if not good and not problems:
        problems.append("no box in the answer")
    if len(good) > 1:
        problems.append(f"{len(good)} boxes where one was asked for; the first counts")
    return tuple(good), problems
