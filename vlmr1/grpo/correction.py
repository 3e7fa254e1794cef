"""The importance correction between who samples and who trains: two programs never agree on a log-prob to the last bit.

Completions come from μ, the server's distribution (another precision, other kernels, perhaps weights of one set of
rollouts before), and the gradient is meant for π, the trainer's before the step's update. Weighted by π / μ it is.

- token: each token's share of the loss times min(π / μ, cap), truncated importance sampling ("TIS", Yao et al. 2025,
  "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training").
- sequence: each completion's times the product of its tokens' ratios, or 0 where that is above the cap, masked
  importance sampling ("MIS", Liu et al. 2025, "When Speed Kills Stability: Demystifying RL Collapse from the
  Training-Inference Mismatch").
- off: nothing is weighted; the figures are taken all the same.

The KL to the reference is not weighted. No gradient flows through a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from vlmr1.grpo.losses import LARGEST
from vlmr1.settings import Correction

SUMS = ("tokens", "difference", "kl", "ratios", "ratio", "cut")


@dataclass
class Mismatch:
    """What a step's passes showed of the difference, on this process."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))
    largest_ratio: float = 0.0
    largest_difference: float = 0.0

    def weigh(
        self, logps: torch.Tensor, sampled: torch.Tensor, mask: torch.Tensor, settings: Correction
    ) -> torch.Tensor | None:
        """The weights, (B, G, T) or (B, G, 1); None where nothing is weighted.

        `logps` are the completions' log-probs here, `sampled` those there, (B, G, T) in nats.
        """
        mask = mask.bool()
        logs = (logps.detach() - sampled.to(logps)).where(mask, 0.0)
        real = mask
        self._note(logs[mask])
        if settings.level == "sequence":
            logs, real = logs.sum(-1, keepdim=True), mask.any(-1, keepdim=True)
        ratio = logs.clamp(max=LARGEST).exp()
        above = ratio > (settings.cap or float("inf"))
        found = ratio[real]
        self.sums["ratios"] += found.numel()
        self.sums["ratio"] += float(found.sum())
        self.sums["cut"] += float(above[real].sum())
        self.largest_ratio = max(self.largest_ratio, float(found.max()) if found.numel() else 0.0)
        if settings.level == "off":
            return None
        return ratio.clamp(max=settings.cap) if settings.level == "token" else ratio.where(~above, 0.0)

    def _note(self, logs: torch.Tensor) -> None:
        """What tokens show, whatever is weighted."""
        if logs.numel():
            self.sums["tokens"] += logs.numel()
            self.sums["difference"] += float(logs.abs().sum())
            self.sums["kl"] += float((logs.clamp(max=LARGEST).expm1() - logs).sum())
            self.largest_difference = max(self.largest_difference, float(logs.abs().max()))

    def figures(
        self, summed: Callable[..., list[float]], gathered: Callable[[list[float]], Sequence[float]]
    ) -> dict[str, float]:
        """The step's figures over all processes, for metrics.jsonl; what was noted is forgotten.

        `sampler/difference`, `…_max`: of log-probs, absolute, a token. `sampler/kl`: of μ to π, the mean of
        π / μ - log(π / μ) - 1 over tokens. `sampler/ratio`, `…_max`: of what is weighted, tokens or completions, before
        the cap; `sampler/cut_share`: how many of them the cap met.
        """
        sums = dict(zip(SUMS, summed(*(self.sums[name] for name in SUMS)), strict=True))
        largest = gathered([self.largest_difference, self.largest_ratio])
        self.sums, self.largest_ratio, self.largest_difference = dict.fromkeys(SUMS, 0.0), 0.0, 0.0
        tokens, ratios = max(sums["tokens"], 1.0), max(sums["ratios"], 1.0)
        return {
            "sampler/difference": sums["difference"] / tokens,
            "sampler/difference_max": max(largest[0::2]),
            "sampler/kl": sums["kl"] / tokens,
            "sampler/ratio": sums["ratio"] / ratios,
            "sampler/ratio_max": max(largest[1::2]),
            "sampler/cut_share": sums["cut"] / ratios,
        }


def laid_out(
    completions: Sequence[Sequence[Sequence[int]]], logps: Sequence[Sequence[Sequence[float]]]
) -> torch.Tensor:
    """Log-probs of completions (B, G, T) as scoring lays them out: T tokens of the longest kept, padding 0.

    A completion that is not trained on is empty, and its log-probs are left out.
    """
    longest = max(1, *(len(one) for group in completions for one in group))
    found = torch.zeros(len(completions), len(logps[0]), longest)
    for b, group in enumerate(completions):
        for g, one in enumerate(group):
            if one:
                found[b, g, : len(one)] = torch.tensor(logps[b][g])
    return found
