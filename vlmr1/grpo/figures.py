"""What a step's rollouts showed: means over all completions on all processes, and rows a person can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vlmr1.grpo.advantages import zero_variance
from vlmr1.grpo.scoring import Judged
from vlmr1.sample import Sample

FIGURES = (  # beginnings of the names of what a rollout's figures are
    "reward",
    "judged",
    "completion_length",
    "boxes",
    "truncated_share",
    "parse_failure_rate",
    "repeated_boxes_share",
    "duplicate_share",
    "zero_variance_share",
    "alarms",
    "staleness",
    "stale_refused",
)


class Figures:
    """The figures of one process's groups."""

    def __init__(
        self,
        judged: Sequence[Sequence[Judged]],
        completions: Sequence[Sequence[Sequence[int]]],
        rewards: torch.Tensor,
        cut: torch.Tensor,
    ) -> None:
        """B groups of G: how each completion was scored, its tokens, `rewards` and `cut` (B, G)."""
        self.judged, self.completions, self.rewards, self.cut = judged, completions, rewards, cut
        flat = [one for group in judged for one in group]
        again = [c in group[:i] for group in completions for i, c in enumerate(map(list, group))]
        self.values: dict[str, list[float]] = {  # of every completion
            "judged": [one.metric for one in flat],
            "completion_length": [float(len(c)) for group in completions for c in group],
            "boxes": [float(one.boxes) for one in flat],
            "truncated_share": cut.flatten().float().tolist(),
            "parse_failure_rate": [float(not one.parsed) for one in flat],
            "repeated_boxes_share": [one.repeated / max(1, one.boxes) for one in flat],
            "duplicate_share": [float(said) for said in again],
            "reward": rewards.flatten().tolist(),
        }
        for name in flat[0].rewards:
            self.values[f"rewards/{name}"] = [one.rewards[name].value for one in flat]
            self.values[f"rewards/{name}_failures"] = [float(not one.rewards[name].parsed) for one in flat]

    def means(self, summed: Callable[..., list[float]]) -> dict[str, float]:
        """Means over all processes, and the unbiased deviation of each reward; `summed` adds up over processes."""
        names = list(self.values)
        sums = [sum(self.values[name]) for name in names]
        squares = [sum(v * v for v in self.values[name]) for name in names]
        idle = zero_variance(self.rewards).sum().item()
        count, groups, idle, *rest = summed(self.rewards.numel(), len(self.rewards), idle, *sums, *squares)
        found = {"zero_variance_share": idle / groups}
        for i, name in enumerate(names):
            mean, square = rest[i] / count, rest[len(names) + i]
            found[name] = mean
            if name.startswith("reward") and not name.endswith("_failures"):
                found[f"{name}_std"] = max(0.0, (square - count * mean * mean) / max(1.0, count - 1)) ** 0.5
        return found

    def rows(
        self, step: int, indices: Sequence[int], samples: Sequence[Sample], advantages: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Each completion with what was read of it, its rewards and why; `advantages` (B, G).

        `item` is the question's place in the data, `number` the completion's in its group; boxes are on the stored
        picture.
        """
        gains, cut = advantages.tolist(), self.cut.tolist()
        return [
            {
                "step": step,
                "item": index,
                "number": g,
                "source": sample.source,
                "id": sample.id,
                "input_size": [one.frame[1], one.frame[0]],
                "completion": one.answer.completion,
                "tokens": len(self.completions[b][g]),
                "truncated": cut[b][g],
                "boxes": [[round(v, 2) for v in box] for box in one.answer.boxes],
                "labels": [found.label for found in one.answer.found[: len(one.answer.boxes)]],
                "problems": list(one.answer.problems),
                "reward": one.total,
                "advantage": gains[b][g],
                "judged": one.metric,
                "rewards": {name: vars(reward) for name, reward in one.rewards.items()},
            }
            for b, (index, sample) in enumerate(zip(indices, samples, strict=True))
            for g, one in enumerate(self.judged[b])
        ]
