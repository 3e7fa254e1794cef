"""REC, referring expression comprehension: one sentence, one box, or `None` where nothing fits the sentence.

The reward a policy is trained on and the score it is judged by stand here side by side, over the same `Answer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from vlmr1.answers import Answer, read
from vlmr1.boxes import Box, Size, iou, rescale
from vlmr1.rewards import Reward
from vlmr1.rewards.detection import iou_reward
from vlmr1.rewards.shape import rec_format_reward
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.tasks import common

QUESTION = "Please provide the bounding box coordinate of the region this sentence describes:"
INSTRUCTION = "Think first, between <think> and </think>, then give the box as JSON between <answer> and </answer>."
THOUGHT = "I look for it."
METHODS = ("iou",)  # accuracy rewards a row may ask for
REWARDS = ("accuracy", *common.SHAPE, *METHODS)
JUDGED = "hit"  # the score that tells whether the policy got better
HIT_IOU = 0.5  # a hit is an IoU strictly above it, as in the RefCOCO evaluation of VLM-R1
NONE = "None"  # the answer, and the stored truth, of an expression without a target


def problem(expression: str) -> str:
    """The stored question for an expression, in the original data's wording."""
    return f"{QUESTION} {expression}."


def question(row: Row) -> str:
    """The stored question of a row."""
    return problem(row.text.strip())


def solution(row: Row) -> str:
    """The stored truth: the box, or `None`. Raises ValueError for more than one box."""
    if len(row.boxes) > 1:
        raise ValueError(f"row {row.row}: {len(row.boxes)} boxes where an expression has one target or none")
    return json.dumps([round(v, 2) for v in row.boxes[0]]) if row.boxes else NONE


def prompt(sample: Sample) -> str:
    """The text that stands after the picture."""
    return f"{sample.problem} {INSTRUCTION}"


def truth(sample: Sample) -> Box | None:
    """The true box in pixels of the stored picture, None for an expression without a target.

    Raises ValueError when the solution is neither one good box nor `None`.
    """
    if sample.solution.strip() == NONE:
        return None
    try:
        x0, y0, x1, y1 = (float(v) for v in json.loads(sample.solution))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{sample.source} id {sample.id}: solution {sample.solution!r} is not [x0, y0, x1, y1], nor {NONE}"
        ) from error
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"{sample.source} id {sample.id}: solution {sample.solution!r} is empty or inverted")
    return (x0, y0, x1, y1)


def target(sample: Sample, model_size: Size) -> str:
    """The completion supervised training teaches; the box in pixels of the model's resized input (`model_size`).

    Its thought is always the same: the data have none, and copying the expression would only teach copying.
    """
    true = truth(sample)
    said = NONE
    if true is not None:
        box = [round(v) for v in (rescale(true, sample.sizes[0], model_size) if sample.sizes else true)]
        said = f'{{"bbox_2d":{json.dumps(box, separators=(",", ":"))}}}'
    return f"<think>{THOUGHT}</think><answer>{said}</answer>"


def answer(completion: str, sample: Sample, model_size: Size) -> Answer:
    """Read a completion and carry its boxes from the model's resized input to the stored picture."""
    said = read(completion)
    if sample.sizes:  # without a picture there is no frame to carry boxes from
        said = said.carried(model_size, sample.sizes[0])
    if len(said.boxes) > 1:
        return replace(
            said, problems=(*said.problems, f"{len(said.boxes)} boxes where one is asked for; the first counts")
        )
    if said.box is None and not said.refused and not said.none:
        return replace(said, problems=(*said.problems, "no box in the answer"))
    return said


def rewards(said: Answer, sample: Sample, names: Iterable[str]) -> dict[str, Reward]:
    """The named rewards. Raises ValueError for a sample that asks for an accuracy reward this task has not."""
    return common.rewards(
        said, sample, names, METHODS, lambda method: iou_reward(said, truth(sample)), rec_format_reward
    )


def score(said: Answer, sample: Sample) -> dict[str, float | bool]:
    """What evaluation counts: the IoU (0 where no box could be read), the hit, and whether an answer could be read.

    Where there is no target, `None` is a hit of IoU 1.
    """
    true, none = truth(sample), said.none and said.text is not None
    value = iou(said.box, true) if true is not None and said.box is not None else float(true is None and none)
    return {"iou": value, "hit": value > HIT_IOU, "parsed": none or said.box is not None}
