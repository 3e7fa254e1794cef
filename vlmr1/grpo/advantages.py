"""Advantages: how much better than its group each completion scored."""

from __future__ import annotations

import torch

STD_FLOOR = 1e-4  # added to the deviation, as in VLM-R1 and TRL


def group_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """(r - mean) / (std + 1e-4) over each group, for rewards (B, G); the deviation is the unbiased one.

    GRPO's outcome supervision, arXiv 2402.03300 §4.1.2. A group whose rewards are all equal gets exact zeros.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    scaled = centred / (rewards.std(dim=1, keepdim=True) + STD_FLOOR)
    return torch.where(zero_variance(rewards)[:, None], 0.0, scaled)


def zero_variance(rewards: torch.Tensor) -> torch.Tensor:
    """(B,) whether all rewards of a group (B, G) are equal, so that it teaches nothing."""
    return (rewards == rewards[:, :1]).all(dim=1)
