"""GUI: pictures of an interface before and after an action; which kind of defect, if any, do they show?

Asked, read and scored as in math; only the rewards that a row may ask for, and the thought that is taught, differ.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlmr1.answers import Answer
from vlmr1.boxes import Size
from vlmr1.rewards import Reward
from vlmr1.sample import Sample
from vlmr1.tasks import common
from vlmr1.tasks.math import INSTRUCTION, JUDGED, answer, prompt, question, score, solution, truth

__all__ = [
    "DEFECTS", "INSTRUCTION", "JUDGED", "METHODS", "REWARDS", "THOUGHT", "answer", "prompt", "question", "rewards",
    "score", "solution", "target", "truth",
]  # fmt: skip
THOUGHT = "I compare them."
METHODS = ("all_match", *(name for name in common.IN_WORDS if name != "all_match"))
REWARDS = ("accuracy", *common.SHAPE, *METHODS)
DEFECTS = (  # the answers of the original's form, in its words
    "No Defect",
    "Operation No Response",
    "Virtual Keyboard Related Issue",
    "Navigation Logic Error",
    "Unexpected Task Result",
)


def target(sample: Sample, model_size: Size) -> str:
    """The completion supervised training teaches."""
    return f"<think>{THOUGHT}</think><answer>{truth(sample)}</answer>"


def rewards(said: Answer, sample: Sample, names: Iterable[str]) -> dict[str, Reward]:
    """The named rewards. Raises ValueError for a sample that asks for an accuracy reward this task has not."""
    return common.rewards(said, sample, names, METHODS, lambda m: common.reward_in_words(m, said, sample))
