"""Advantages: how much better than its group each completion scored.

Left out on purpose: the deviation of a whole step, which may span processes; who holds all its rewards gives it.
"""

from __future__ import annotations

from typing import Literal

import torch

STD_FLOOR = 1e-4  # added to the deviation, as in VLM-R1 and TRL


def advantages(
    rewards: torch.Tensor, scale: Literal["group", "batch", "none"], batch_std: torch.Tensor | None
) -> torch.Tensor:
    """(r - its group's mean) / (deviation + 1e-4), for rewards (B, G); the same shape.

    `scale` names the unbiased deviation: "group", of the group itself (GRPO, arXiv 2402.03300 §4.1.2); "batch", of
    all rewards of the step, given as the scalar `batch_std` (arXiv 2508.08221); "none" does not divide (Dr. GRPO,
    arXiv 2503.20783). A group whose rewards are all equal gets exact zeros. Raises ValueError for a reward that is not
    a finite number.
    """
    if not rewards.isfinite().all():
        raise ValueError("a reward is not a finite number")
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (rewards.std(dim=1, keepdim=True) + STD_FLOOR)
    elif scale == "batch":
        if batch_std is None:
            raise ValueError("scale batch needs the deviation of the step's rewards")
        centred = centred / (batch_std + STD_FLOOR)
    return torch.where(zero_variance(rewards)[:, None], 0.0, centred)


def zero_variance(rewards: torch.Tensor) -> torch.Tensor:
    """(B,) whether all rewards of a group (B, G) are equal, so that it teaches nothing."""
    return (rewards == rewards[:, :1]).all(dim=1)
