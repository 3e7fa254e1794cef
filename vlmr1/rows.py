"""`Row`: one question as a public list has it, before anything judged it.

Readers (`vlmr1.sources`) make rows and judge nothing, validation names what is wrong with them, conversion makes
`vlmr1.sample.Sample`s of the good ones. Coordinates are pixels of the picture as it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmr1.boxes import Box, Size


@dataclass(frozen=True, slots=True)
class Row:
    """One question. What a task does not use stays empty."""

    row: int  # 0-based place in the list: the name by which reports and samples call it
    images: tuple[str, ...]  # relative to the source's picture folder
    sizes: tuple[Size, ...]  # (width, height) of each as the list declares it; () where it does not
    task: str  # which of vlmr1.tasks
    reward: str  # the accuracy reward, one of the task's METHODS
    text: str = ""  # rec: the expression; math, gui: the question, `<image>` where a picture stands inside the text
    boxes: tuple[Box, ...] = ()  # rec: the target, none for an expression without one; ovd: every true box
    labels: tuple[str, ...] = ()  # ovd: the label of each box
    asked: tuple[str, ...] = ()  # ovd: the names to look for, in the order of the prompt
    answer: str = ""  # math, gui: the true answer
    group: str = ""  # rows of one group are judged together: variants of one question, steps of one problem
    kind: str = ""  # what to tell apart in a report: a subject, a level, a kind of expression
    fault: str = ""  # why the row could not be read, in a sentence with file, place and mend; all else is empty then


def unread(row: int, task: str, reward: str, fault: ValueError) -> Row:
    """What stands for a malformed item: its place and what is wrong with it."""
    return Row(row, (), (), task, reward, fault=str(fault))
