"""The GRPO trainer: roll out, score, compare within the group, step.

Each optimiser step sees `prompts_per_step` whole groups. With `num_iterations` > 1 the same rollouts serve several
steps, and the clipped ratio holds them near the policy that sampled. Sampling draws from a generator seeded by the
step, so a resumed run samples what an uninterrupted one would.
Left out on purpose: groups spread over processes, rollouts from a server, LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmr1.families.qwen_vl import Batch, QwenVL
from vlmr1.files import write_atomically
from vlmr1.grpo.advantages import group_advantages, zero_variance
from vlmr1.grpo.logprobs import token_logprobs
from vlmr1.grpo.losses import grpo_loss
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.shared_prefix import completion_logits, pad_completions
from vlmr1.rewards import Reward
from vlmr1.sample import Sample, Source, lines_of
from vlmr1.settings import Compute, Grpo
from vlmr1.tasks import TASKS
from vlmr1.training import VlmTrainer


@dataclass
class Rollout:
    """One batch of groups, on the policy's device."""

    batch: Batch
    ids: torch.Tensor  # (B, G, T) completion tokens
    mask: torch.Tensor  # (B, G, T)
    advantages: torch.Tensor  # (B, G)
    figures: dict[str, float]
    old_logps: torch.Tensor | None = None  # (B, G, T), set by the first iteration when there are several
    reference_logps: torch.Tensor | None = None  # (B, G, T), when beta > 0


class GrpoTrainer(VlmTrainer):
    """GRPO over prompts whose answers a task can score."""

    def __init__(
        self,
        model: Any,
        reference: Any | None,
        family: QwenVL,
        sources: Sequence[Source],
        settings: Grpo,
        compute: Compute,
        work: Path,
    ) -> None:
        """`reference` is a second model, wanted exactly when `settings.beta` > 0."""
        if (reference is not None) != (settings.beta > 0):
            raise ValueError("a reference model is needed exactly when grpo.beta > 0")
        super().__init__(
            model,
            family,
            sources,
            settings,
            compute,
            work,
            seed=settings.seed,
            batch=settings.prompts_per_step,
            steps=settings.steps,
            repeats=settings.num_iterations,
        )
        self.grpo = settings
        self.rollout: Rollout | None = None
        self.reference = None if reference is None else reference.to(self.args.device).eval()
        self.rollouts_path = work / "rollouts.jsonl"

    def forget_after(self, step: int) -> None:
        if self.rollouts_path.is_file():
            whole = lines_of(self.rollouts_path.read_text(encoding="utf-8"))  # a kill may leave half a line
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            write_atomically(self.rollouts_path, "".join(f"{line}\n" for line in kept))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The GRPO loss of this step's groups; new rollouts every `num_iterations` steps."""
        if self.rollout is None or self.state.global_step % self.grpo.num_iterations == 0:
            self.rollout = self._roll_out(model, inputs)
        roll = self.rollout
        logps, entropy = self._logps(model, roll)
        if roll.old_logps is None:
            roll.old_logps = logps.detach()
        loss = grpo_loss(
            logps,
            roll.old_logps,
            roll.advantages,
            roll.mask,
            self.grpo.epsilon or 0.0,
            roll.reference_logps,
            self.grpo.beta,
        )
        mean_entropy = (entropy * roll.mask).sum() / roll.mask.sum()
        measured = {} if roll.reference_logps is None else {"kl": loss.kl.item()}
        self.note(**roll.figures, **measured, clip_share=loss.clip_share.item(), entropy=mean_entropy.item())
        return loss.value

    def _logps(self, model: Any, roll: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
        logits = completion_logits(model, roll.batch, roll.ids)  # (B, G, T, V)
        return token_logprobs(logits, roll.ids, self.grpo.temperature, self.family.never_sampled)

    def _roll_out(self, model: Any, inputs: dict[str, Any]) -> Rollout:
        samples, prompts = inputs["samples"], inputs["prompts"]
        step, settings = self.state.global_step, self.grpo
        batch = self.batch(model, prompts)
        generator = torch.Generator(self.args.device).manual_seed(settings.seed * 1_000_003 + step)
        completions = sample_completions(
            self.accelerator.unwrap_model(model),
            self.family,
            batch,
            settings.num_generations,
            settings.max_completion_length,
            settings.temperature,
            generator,
        )
        texts = [[self.family.decode(c) for c in group] for group in completions]
        scored = [
            [_score(text, sample, prompt.size) for text in group]
            for group, sample, prompt in zip(texts, samples, prompts, strict=True)
        ]
        parts = {  # each (B, G)
            name: torch.tensor([[one[name].value for one in group] for group in scored]) for name in settings.rewards
        }
        rewards = sum(weight * parts[name] for name, weight in settings.rewards.items())
        advantages = group_advantages(rewards)
        ids, mask = pad_completions(completions, self.family.pad_id)
        cut = [c[-1] not in self.family.end_ids for group in completions for c in group]
        parsed = [one["iou"].parsed for group in scored for one in group]
        figures = {
            "reward": rewards.mean().item(),
            "reward_std": rewards.std().item(),
            **{f"rewards/{name}": value.mean().item() for name, value in parts.items()},
            **{f"rewards/{name}_std": value.std().item() for name, value in parts.items()},
            "completion_length": mask.sum(-1).float().mean().item(),
            "truncated_share": sum(cut) / len(cut),
            "parse_failure_rate": 1 - sum(parsed) / len(parsed),
            "zero_variance_share": zero_variance(rewards).float().mean().item(),
        }
        if settings.log_rollouts:
            self._write(step + 1, samples, texts, scored, rewards, advantages)
        device = self.args.device
        roll = Rollout(batch, ids.to(device), mask.to(device), advantages.to(device), figures)
        if self.reference is not None:
            with torch.no_grad():
                roll.reference_logps, _ = self._logps(self.reference, roll)
        return roll

    def _write(
        self,
        step: int,
        samples: list[Sample],
        texts: list[list[str]],
        scored: list[list[dict[str, Reward]]],
        rewards: torch.Tensor,
        advantages: torch.Tensor,
    ) -> None:
        """Append a step's rollouts, each with its rewards, whether it could be read, and why."""
        with self.rollouts_path.open("a", encoding="utf-8") as file:
            for b, sample in enumerate(samples):
                for g, text in enumerate(texts[b]):
                    row = {
                        "step": step,
                        "source": sample.source,
                        "id": sample.id,
                        "completion": text,
                        "reward": rewards[b, g].item(),
                        "advantage": advantages[b, g].item(),
                        "rewards": {name: vars(one) for name, one in scored[b][g].items()},
                    }
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _score(text: str, sample: Sample, size: tuple[int, int]) -> dict[str, Reward]:
    task = TASKS[sample.task]
    return task.rewards(task.answer(text, sample, size), sample)
