"""One reading of a completion: text in, `Answer` out. Rewards and metrics both use it.

A completion is read once. Reading never raises, takes time linear in the text, and says in `problems` what was wrong.
What counts where a completion says several things is decided here, for training and evaluation alike: the last answer
block; in it the last fenced block marked json, or the last at all; of its boxes, where a task wants one, the first.
Choices, yes/no and numbers are read from `Answer.said` by `choices`, `words` and `numbers` of this package.
Left out on purpose: libraries that repair JSON, which recurse or take quadratic time on hostile text; where JSON is
broken, boxes and labels are found by scanning, whatever stands around them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlmr1.answers.scanning import NOTHING, Found, is_none, scan
from vlmr1.answers.tags import blocks
from vlmr1.boxes import Box, Size, rescale

__all__ = ["LONGEST", "Answer", "Found", "read"]
LONGEST = 65_536  # characters of a completion that are read: a bound on the time any answer takes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a completion said. Boxes are in the frame the model speaks in, until `carried` to another."""

    completion: str
    thinking: str | None
    text: str | None  # inside the last <answer>…</answer>; None without one
    said: str  # the text, or without an answer block what stands in its place
    found: tuple[Found, ...]  # ordered and non-empty boxes of `said` with their labels, in order of appearance
    refused: tuple[tuple[int, Found], ...]  # boxes empty, inverted or beyond reason; how many good ones stand before
    unread: int  # items that ought to be boxes and are no four numbers
    none: bool  # said that there is nothing: `None`, `null`, `[]`
    shape: tuple[str, ...]  # empty when the completion is a think block, an answer block and nothing else
    problems: tuple[str, ...]  # all that was wrong, the faults of shape first
    tokens: int | None = None  # of the completion, where whoever asks the model tells

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the answer block, in order of appearance; none without a block."""
        return () if self.text is None else tuple(one.box for one in self.found)

    @property
    def count(self) -> int:
        """How many boxes were said, good or not."""
        return len(self.found) + len(self.refused) + self.unread

    @property
    def box(self) -> Box | None:
        """The box that counts where a task wants one: the first of the answer block."""
        return self.found[0].box if self.found and self.text is not None else None

    def carried(self, model_size: Size, size: Size) -> Answer:
        """The same answer with its boxes carried from the model's resized input to the stored picture.

        Both sizes are (width, height). A box that leaves the stored picture is named in `problems`, and kept.
        """
        found = tuple(Found(rescale(one.box, model_size, size), one.label) for one in self.found)
        outside = [
            f"box {[round(v, 1) for v in box]} reaches outside the picture, {size[0]} x {size[1]}"
            for box, _ in found[:SHOWN]
            if box[0] < 0 or box[1] < 0 or box[2] > size[0] + SLACK or box[3] > size[1] + SLACK
        ]
        return replace(self, found=found, problems=(*self.problems, *outside))


SHOWN = 8  # boxes that are named one by one
SLACK = 0.5  # pixels by which rounding may carry a box over the border


def read(completion: object) -> Answer:
    """Read a completion, of which nothing is assumed. What is no text is an empty answer whose problem says so."""
    if not isinstance(completion, str):
        fault = f"the completion is of type {type(completion).__name__}, not text"
        return Answer("", None, None, "", NOTHING.found, NOTHING.refused, NOTHING.unread, False, (fault,), (fault,))
    long = len(completion) > LONGEST
    completion = completion[:LONGEST]
    thinking, text, said, shape = blocks(completion)
    if long:
        shape = [*shape, f"longer than {LONGEST} characters; the rest is not read"]
    none = is_none(said)
    boxes = NOTHING if none else scan(said)
    problems = (*shape, *boxes.faults)
    return Answer(
        completion, thinking, text, said, boxes.found, boxes.refused, boxes.unread, none, tuple(shape), problems
    )
