"""GUI: pictures of an interface before and after an action; which kind of defect, if any, do they show?"""

from __future__ import annotations

from collections.abc import Iterable

from vlmr1.answers import Answer, read
from vlmr1.boxes import Size
from vlmr1.rewards import Reward
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.tasks import common

INSTRUCTION = common.THINK
THOUGHT = "I compare them."
METHODS = ("all_match", *(name for name in common.IN_WORDS if name != "all_match"))
REWARDS = ("accuracy", *common.SHAPE, *METHODS)
JUDGED = "correct"
DEFECTS = (  # the answers of the original's form, in its words
    "No Defect",
    "Operation No Response",
    "Virtual Keyboard Related Issue",
    "Navigation Logic Error",
    "Unexpected Task Result",
)


def question(row: Row) -> str:
    """The stored question, `<image>` where a picture stands inside it."""
    return row.text.strip()


def solution(row: Row) -> str:
    """The stored truth: the answer as text."""
    return row.answer.strip()


def prompt(sample: Sample) -> str:
    """The question, then the instruction, which asks for no JSON."""
    return f"{sample.problem} {INSTRUCTION}"


def truth(sample: Sample) -> str:
    """The true answer. Raises ValueError for one that is empty, or that the row's reward cannot compare with."""
    return common.truth_in_words(sample)


def target(sample: Sample, model_size: Size) -> str:
    """The completion supervised training teaches."""
    return f"<think>{THOUGHT}</think><answer>{truth(sample)}</answer>"


def answer(completion: str, sample: Sample, model_size: Size) -> Answer:
    """Read a completion."""
    return read(completion)


def rewards(said: Answer, sample: Sample, names: Iterable[str]) -> dict[str, Reward]:
    """The named rewards. Raises ValueError for a sample that asks for an accuracy reward this task has not."""
    return common.rewards(said, sample, names, METHODS, lambda m: common.reward_in_words(m, said, sample))


def score(said: Answer, sample: Sample) -> dict[str, float | bool]:
    """What evaluation counts: whether the row's own reward finds the answer right, and whether it could be read."""
    own = common.reward_in_words(sample.reward, said, sample)
    return {"correct": own.value == 1.0, "parsed": own.parsed}
