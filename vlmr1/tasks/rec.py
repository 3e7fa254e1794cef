"""REC, referring expression comprehension: one sentence, one box.

The reward a policy is trained on and the score it is judged by stand here side by side, over the same `Answer`.
Left out on purpose: expressions without a target, which need an answer of their own.
"""

from __future__ import annotations

import json
from dataclasses import replace

from vlmr1.answers import Answer, read
from vlmr1.boxes import Box, Size, iou, rescale
from vlmr1.rewards import Reward
from vlmr1.rewards.detection import iou_reward
from vlmr1.rewards.shape import format_reward
from vlmr1.sample import Sample

QUESTION = "Please provide the bounding box coordinate of the region this sentence describes:"
INSTRUCTION = "Think first, between <think> and </think>, then give the box as JSON between <answer> and </answer>."
THOUGHT = "I look for it."
REWARDS = ("iou", "format")
METHODS = ("iou",)  # accuracy rewards a row may ask for
JUDGED = "hit"  # the score that tells whether the policy got better
HIT_IOU = 0.5  # a hit is an IoU strictly above it, as in the RefCOCO evaluation of VLM-R1


def problem(expression: str) -> str:
    """The stored question for an expression, in the original data's wording."""
    return f"{QUESTION} {expression}."


def prompt(sample: Sample) -> str:
    """The text that stands after the picture."""
    return f"{sample.problem} {INSTRUCTION}"


def truth(sample: Sample) -> Box:
    """The true box in pixels of the stored picture. Raises ValueError when the solution is not one good box."""
    try:
        value = json.loads(sample.solution)
        x0, y0, x1, y1 = (float(v) for v in value)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{sample.source} id {sample.id}: solution {sample.solution!r} is not [x0, y0, x1, y1]"
        ) from error
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"{sample.source} id {sample.id}: solution {sample.solution!r} is empty or inverted")
    return (x0, y0, x1, y1)


def target(sample: Sample, model_size: Size) -> str:
    """The completion supervised training teaches; the box in pixels of the model's resized input (`model_size`).

    Its thought is always the same: the data have none, and copying the expression would only teach copying.
    """
    box = [round(v) for v in (rescale(truth(sample), sample.sizes[0], model_size) if sample.sizes else truth(sample))]
    return f'<think>{THOUGHT}</think><answer>{{"bbox_2d":{json.dumps(box, separators=(",", ":"))}}}</answer>'


def answer(completion: str, sample: Sample, model_size: Size) -> Answer:
    """Read a completion and carry its boxes from the model's resized input to the stored picture."""
    said = read(completion)
    if not sample.sizes:
        return said  # without a picture there is no frame to carry boxes from
    return replace(said, boxes=tuple(rescale(box, model_size, sample.sizes[0]) for box in said.boxes))


def rewards(said: Answer, sample: Sample) -> dict[str, Reward]:
    """Every reward of the task by name, each in [0, 1]. Raises ValueError for a sample that asks for another one."""
    if sample.reward != "iou":
        raise ValueError(f"{sample.source} id {sample.id}: this task knows no accu_reward_method {sample.reward!r}")
    return {"iou": iou_reward(said, truth(sample)), "format": format_reward(said)}


def score(said: Answer, sample: Sample) -> dict[str, float | bool]:
    """What evaluation counts: the IoU (0 where no box could be read), the hit, and whether a box could be read."""
    value = iou(said.box, truth(sample)) if said.box else 0.0
    return {"iou": value, "hit": value > HIT_IOU, "parsed": said.box is not None}
