"""The reference policy that the KL holds the trained one to: a second model, or the policy with its adapter off.

Left out on purpose: a synchronised reference under ZeRO-3, whose weights no process holds whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from vlmr1.families.base import Family, Prompt
from vlmr1.grpo.policy import Completions, Features, Policy, Scored, prepare

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer
    from vlmr1.settings import SyncReference


class Reference:
    """Asked without gradients."""

    def __init__(self, policy: Policy, adapted: Any | None) -> None:
        """`adapted` is the peft model whose adapter is switched off while the reference is asked."""
        self.policy, self.adapted = policy, adapted

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], completions: Completions, features: Features | None) -> Scored:
        """Log-probs of the completions, as `Policy.score` gives them."""
        training = self.policy.bare.training
        self.policy.bare.eval()
        with nullcontext() if self.adapted is None else self.adapted.disable_adapter():
            scored = self.policy.score(prompts, completions, features)
        self.policy.bare.train(training)
        return scored

    @torch.no_grad()
    def follow(self, model: Any, sync: SyncReference) -> None:
        """Move a second model's weights towards the trained one's: α·policy + (1 - α)·reference."""
        for mine, theirs in zip(self.policy.bare.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), sync.ref_model_mixup_alpha)


def second_model(
    checkpoint: Path,
    family: Family,
    dtype: torch.dtype,
    device: torch.device,
    temperature: float,
    shared: bool,
    autocast: Callable[[], AbstractContextManager[Any]],
    attention: str,
) -> Reference:
    """The checkpoint as it is, frozen, on the policy's device; sharded like the policy under ZeRO-3."""
    model = family.load_model(checkpoint, dtype).requires_grad_(False).eval()
    prepare(model, family, shared, attention)
    if any(hasattr(p, "ds_id") for p in model.parameters()):
        import deepspeed

        config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
        config["bf16"] = {"enabled": dtype == torch.bfloat16}
        engine, *_ = deepspeed.initialize(model=model, config=config)
        return Reference(Policy(engine, model, family, temperature, shared, device, autocast), None)
    model.to(device)
    return Reference(Policy(model, model, family, temperature, shared, device, autocast), None)


class FollowingReference(TrainerCallback):
    """Lets a synchronised reference follow the policy every so many steps."""

    def __init__(self, trainer: GrpoTrainer, sync: SyncReference) -> None:
        self.trainer, self.sync = trainer, sync

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.sync.ref_model_sync_steps == 0 and self.trainer.reference is not None:
            self.trainer.reference.follow(self.trainer.bare, self.sync)
