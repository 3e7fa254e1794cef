"""Supervised training: the warm-up of the tiny model and the baseline GRPO is compared with.

The loss is the mean negative log-likelihood of the completion tokens the task calls right (`tasks.*.target`), over
the same prompts, through the same forward pass as GRPO's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from vlmr1.grpo.shared_prefix import completion_logits, pad_completions
from vlmr1.tasks import TASKS
from vlmr1.training import VlmTrainer


class SftTrainer(VlmTrainer):
    """Teacher forcing on the task's target completion."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Mean cross-entropy over the batch's completion tokens, nats a token."""
        samples, prompts = inputs["samples"], inputs["prompts"]
        targets = [
            [self.family.encode_completion(TASKS[s.task].target(s, p.size))]
            for s, p in zip(samples, prompts, strict=True)
        ]
        ids, mask = (t.to(self.args.device) for t in pad_completions(targets, self.family.pad_id))  # (B, 1, T)
        logits = completion_logits(model, self.batch(model, prompts), ids)  # (B, 1, T, V)
        return F.cross_entropy(logits.float()[mask.bool()], ids[mask.bool()])
