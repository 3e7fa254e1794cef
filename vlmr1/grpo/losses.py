"""The policy's loss: GRPO's clipped surrogate and its relatives, under TRL's option names and with TRL's formulas.

A step's completions come in micro-batches, perhaps in several processes. Each call gives its micro-batch's share of
the step's loss, so that shares and their gradients simply add up.
Left out on purpose: entropy bonuses and TRL's further types (sapo, vespo, luspo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"]

# Nats. An exponent beyond it would overflow, or outweigh every other token of the step; a sound run stays far below.
LARGEST = 20.0


@dataclass(frozen=True)
class Loss:
    """A micro-batch's share of the step's loss and what is worth watching beside it; only `value` carries gradient.

    All scalars; sums and counts are over the micro-batch's tokens, which with gspo share their completion's ratio.
    A token is held back when a bound stands in for its ratio. It then gives no gradient (with cispo, a smaller one).
    """

    value: torch.Tensor
    kl: torch.Tensor  # sum of k3 estimates, nats; 0 without a reference
    clipped_low: torch.Tensor  # tokens held back at the lower bound
    clipped_high: torch.Tensor  # tokens held back at the upper bound, or by delta
    tokens: torch.Tensor


def policy_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    loss_type: LossType,
    epsilon: float,
    epsilon_high: float | None,
    delta: float | None,
    beta: float,
    reference_logps: torch.Tensor | None,
    total_tokens: int,
    total_completions: int,
    max_completion_length: int,
    use_bias_correction_kl: bool = False,
    weights: torch.Tensor | None = None,
) -> Loss:
    """-min(ρA, clip(ρ, 1-ε, 1+ε_high)A) + β·KL, averaged over the step's tokens as `loss_type` says.

    `logps`, `old_logps`, `reference_logps` and `mask` are (B, G, T), `advantages` (B, G), log-probs in nats.
    ρ = exp(logp - old logp). `epsilon_high` None is `epsilon`. `delta` bounds the unclipped ρ from above too, for the
    sake of tokens with A < 0 (arXiv 2505.07291); it belongs above 1 + ε_high. KL is the k3 estimator
    exp(Δ) - Δ - 1 with Δ = reference logp - logp; `reference_logps` is wanted exactly when `beta` > 0. It is that of
    the GRPO paper and of VLM-R1; `use_bias_correction_kl` weights it by ρ, gradient and all, which TRL does by default.

    - grpo: mean over a completion's tokens, then over completions. arXiv 2402.03300, eq. 3 and 4.
    - gspo: the same, with one ρ a completion, the geometric mean of its tokens'. arXiv 2507.18071, eq. 5 and 7.
    - dapo: mean over the step's tokens. arXiv 2503.14476, eq. 8.
    - bnpo: mean over the micro-batch's tokens, then over micro-batches, weighted by their completions.
    - dr_grpo: the tokens' sum over completions times `max_completion_length`. arXiv 2503.20783.
    - cispo: -min(ρ, ε_high)·A·logp + β·KL without gradient through ρ, mean over the step's tokens. Here ε_high is the
      cap on ρ itself, 5 being usual, and `delta` plays no part. arXiv 2506.13585, eq. 4; the cap: 2510.13786.

    `weights` (B, G, T) or (B, G, 1) multiply what stands before the KL (`vlmr1.grpo.correction`).
    `total_tokens` and `total_completions` count the whole step: all micro-batches of all processes. A completion with
    nothing in its mask adds nothing, yet as in TRL it counts among the completions, not among the tokens.
    """
    if (reference_logps is not None) != (beta > 0):
        raise ValueError("reference log-probs are needed exactly when beta > 0")
    mask = mask.bool()
    wide = torch.promote_types(logps.dtype, torch.float32)
    logps = logps.to(wide).where(mask, 0.0)  # padding may hold anything, and a gradient must not meet it
    log_ratio = logps - old_logps.to(wide).where(mask, 0.0)  # (B, G, T)
    lengths = mask.sum(-1, keepdim=True, dtype=wide)  # (B, G, 1)
    if loss_type == "gspo":
        log_ratio = log_ratio.sum(-1, keepdim=True) / lengths.clamp(min=1)  # (B, G, 1)
    ratio = log_ratio.clamp(max=LARGEST).exp()
    gain = advantages.to(wide)[..., None]  # (B, G, 1)
    high = epsilon if epsilon_high is None else epsilon_high
    if loss_type == "cispo":
        per_token = -ratio.clamp(max=high).detach() * gain * logps
        low_held, high_held = torch.zeros_like(mask), (ratio > high) & (gain != 0)
    else:
        bounded = ratio if delta is None else ratio.clamp(max=delta)
        per_token = -torch.minimum(bounded * gain, ratio.clamp(1 - epsilon, 1 + high) * gain)
        low_held = (ratio < 1 - epsilon) & (gain < 0)
        high_held = ((ratio > 1 + high) & (gain > 0)) | ((ratio > bounded) & (gain < 0))
    if weights is not None:
        per_token = per_token * weights
    kl = torch.zeros_like(logps)
    if reference_logps is not None:
        kl = _k3(reference_logps.to(wide).where(mask, 0.0) - logps)
        kl = kl * ratio if use_bias_correction_kl else kl
        per_token = per_token + beta * kl
    weight = _weight(loss_type, lengths, total_tokens, total_completions, max_completion_length)
    value = (per_token * weight).where(mask, 0.0).sum()
    with torch.no_grad():
        return Loss(
            value=value,
            kl=kl.where(mask, 0.0).sum(),
            clipped_low=(low_held & mask).sum(),
            clipped_high=(high_held & mask).sum(),
            tokens=mask.sum(),
        )


def _k3(difference: torch.Tensor) -> torch.Tensor:
    """exp(Δ) - Δ - 1. Δ is bounded as a whole: bounding the exponent alone would turn the gradient's sign beyond."""
    difference = difference.clamp(max=LARGEST)
    return difference.exp() - difference - 1


def _weight(
    loss_type: LossType, lengths: torch.Tensor, total_tokens: int, total_completions: int, max_completion_length: int
) -> torch.Tensor | float:
    """What a token counts in the step's loss: one number, or (B, G, 1) one for each completion's tokens."""
    match loss_type:
        case "grpo" | "gspo":
            return 1 / (lengths.clamp(min=1) * total_completions)
        case "dapo" | "cispo":
            return 1 / max(total_tokens, 1)
        case "bnpo":
            return lengths[..., 0].numel() / total_completions / lengths.sum().clamp(min=1)
        case "dr_grpo":
            return 1 / (total_completions * max_completion_length)
