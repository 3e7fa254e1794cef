"""Choosing the next token: temperature, top-k, top-p, min-p, repetition penalty, and tokens that are never sampled.

The filters are transformers' own. A draw is the inverse of the distribution's running sum at a number in [0, 1) that
depends on the sample and the step alone, so a completion does not depend on what else is in the batch or on how many
processes share the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from vlmr1.grpo.logprobs import sampling_logits


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy."""

    temperature: float
    length: int  # most tokens of a completion
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def distribution(self, logits: torch.Tensor, never: torch.Tensor, said: torch.Tensor | None) -> torch.Tensor:
        """Filtered logits (R, V), fp32 or better. `said` (R, S), prompt and completion so far, is for the penalty."""
        if self.repetition_penalty is not None:
            logits = RepetitionPenaltyLogitsProcessor(self.repetition_penalty)(said, logits.float())
        logits = sampling_logits(logits, self.temperature or 1.0, never)
        if self.temperature == 0:
            return logits
        kinds = (TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper)
        for wanted, kind in zip((self.top_k, self.top_p, self.min_p), kinds, strict=True):
            if wanted is not None:
                logits = kind(wanted)(said, logits)
        return logits

    def choose(self, logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """The token of each row (R,) of a distribution's logits (R, V), at draws (R,) in [0, 1)."""
        if self.temperature == 0:
            return logits.argmax(-1)
        running = (logits - logits.amax(-1, keepdim=True)).exp_().cumsum_(-1)  # (R, V), not normalised
        total = running[:, -1:]
        # Strictly below the total, whatever the rounding, so that no token of probability 0 is ever met.
        target = torch.minimum(draws[:, None].to(total) * total, torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(running, target, right=True).clamp_(max=logits.shape[-1] - 1)  # (R, 1)
        # A GPU's running sum wavers by a rounding even where nothing is added: what it meets there may be barred.
        possible = logits.gather(-1, chosen).isfinite()
        return chosen.where(possible, logits.argmax(-1, keepdim=True)).squeeze(-1)


def draws_for(keys: Sequence[object], group: int, length: int) -> torch.Tensor:
    """(B, G, T) numbers in [0, 1): row b from key b alone."""
    rows = []
    for key in keys:
        seed = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big", signed=True)
        rows.append(torch.rand(group, length, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)
