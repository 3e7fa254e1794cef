"""The GRPO loss. Left out on purpose: the other normalisations (Dr. GRPO, DAPO, GSPO, …)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Loss:
    """The loss and what is worth watching beside it, all scalars; `kl` and `clip_share` carry no gradient."""

    value: torch.Tensor
    kl: torch.Tensor  # mean k3 estimate over tokens, nats; 0 without a reference
    clip_share: torch.Tensor  # share of tokens whose ratio the clip held back


def grpo_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    epsilon: float,
    reference_logps: torch.Tensor | None,
    beta: float,
) -> Loss:
    """-min(ρA, clip(ρ, 1-ε, 1+ε)A) + β·KL, averaged over each completion's tokens, then over completions.

    `logps`, `old_logps`, `reference_logps` and `mask` are (B, G, T), `advantages` (B, G). ρ = exp(logp - old logp);
    KL is the k3 estimator exp(Δ) - Δ - 1 with Δ = reference logp - logp. arXiv 2402.03300, eq. 3 and 4.
    """
    mask = mask.to(logps.dtype)
    logps = logps.where(mask > 0, 0.0)  # padding may hold -inf
    ratio = (logps - old_logps.where(mask > 0, 0.0)).exp()
    gain = advantages[..., None]  # (B, G, 1)
    held = ratio.clamp(1 - epsilon, 1 + epsilon)
    per_token = -torch.minimum(ratio * gain, held * gain)  # (B, G, T)
    kl = torch.zeros_like(per_token)
    if reference_logps is not None:
        delta = reference_logps.where(mask > 0, 0.0) - logps
        kl = delta.exp() - delta - 1
        per_token = per_token + beta * kl
    tokens = mask.sum(-1).clamp(min=1)  # (B, G)
    value = ((per_token * mask).sum(-1) / tokens).mean()
    with torch.no_grad():
        clipped = (ratio * gain > held * gain).to(mask.dtype)
        return Loss(value, _token_mean(kl, mask), _token_mean(clipped, mask))


def _token_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return ((values * mask).sum() / mask.sum().clamp(min=1)).detach()
