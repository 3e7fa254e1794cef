"""From logits to the distribution that was sampled from: log-probabilities and entropy, in fp32."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sampling_logits(logits: torch.Tensor, temperature: float, never: Sequence[int]) -> torch.Tensor:
    """Logits (…, V) as the rollout samples from them: fp32 or better, over the temperature, some tokens barred."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return logits.index_fill(-1, torch.tensor(never, dtype=torch.long, device=logits.device), float("-inf"))


def token_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, temperature: float, never: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each token and entropy (nats, no gradient) of each position, both shaped like `tokens`.

    `logits` is (…, V) for `tokens` (…).
    """
    logps = sampling_logits(logits, temperature, never).log_softmax(-1)
    chosen = logps.gather(-1, tokens[..., None]).squeeze(-1)
    with torch.no_grad():
        entropy = -(logps.exp() * logps.nan_to_num(neginf=0.0)).sum(-1)
    return chosen, entropy
