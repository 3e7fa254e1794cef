"""Rewards that compare boxes. Left out on purpose: several boxes (average precision), which come with detection."""

from __future__ import annotations

from vlmr1.answers import Answer
from vlmr1.boxes import Box, iou
from vlmr1.rewards import Reward


def iou_reward(answer: Answer, truth: Box) -> Reward:
    """IoU of the first answered box with the true one, in [0, 1]; 0 where no box can be read.

    Both boxes are in the frame of the stored picture. The continuous IoU: a one-pixel overlap is worth what it is.
    Formula: |A ∩ B| / |A ∪ B|, the accuracy reward of VLM-R1 (arXiv 2504.07615, eq. 5).
    """
    if answer.box is None:
        return Reward(0.0, False, "; ".join(answer.problems) or "no box")
    value = iou(answer.box, truth)
    return Reward(value, True, f"IoU {value:.3f}")
