"""Supervised training: the warm-up of the tiny model and the baseline GRPO is compared with.

The loss is the mean negative log-likelihood of the completion tokens the task calls right (`tasks.*.target`), over
the same prompts, through the same forward pass as GRPO's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from vlmr1.families.base import Prompt
from vlmr1.sample import Source
from vlmr1.settings import Compute, Optimisation, Trained
from vlmr1.tasks import TASKS
from vlmr1.training import VlmTrainer


class SftTrainer(VlmTrainer):
    """Teacher forcing on the task's target completion."""

    def __init__(
        self,
        checkpoint: Path,
        sources: Sequence[Source],
        settings: Optimisation,
        trained: Trained,
        compute: Compute,
        work: Path,
        **order: Any,
    ) -> None:
        """`order` is what `VlmTrainer` wants to know of the steps: max_pixels, seed, batch, steps."""
        super().__init__(checkpoint, sources, settings, trained, compute, work, **order)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[list[dict[str, Any]], None]:
        """A step's passes, each with the number of target tokens of the whole step."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        passes = []
        for batch in batches:
            prompts = [prompt for _, prompt in batch["items"]]
            targets = [self._target(index, prompt) for index, prompt in batch["items"]]
            passes.append({"prompts": prompts, "targets": targets})
        (tokens,) = self.over_processes(sum(len(target) for one in passes for target in one["targets"]))
        return [one | {"tokens": tokens} for one in passes], None

    def _target(self, index: int, prompt: Prompt) -> list[int]:
        sample = self.prompts.sample(index)
        return self.family.encode_completion(TASKS[sample.task].target(sample, prompt.size))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """This pass's share of the mean cross-entropy over the step's completion tokens, nats a token."""
        prompts, targets = list(inputs["prompts"]), [[target] for target in inputs["targets"]]
        mates = self.companion(prompts)
        scored = self.policy.score([*prompts, *mates], [*targets, *[[self.family.end_ids[:1]]] * len(mates)])
        told = scored.logps[: len(prompts)].sum() + 0.0 * scored.logps[len(prompts) :].sum()
        return -told / inputs["tokens"] * self.share_of_loss
