"""The grpo block of params.yaml, in TRL's option names where it has one."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlmr1.settings.base import Block, Count, Rate, Share
from vlmr1.settings.rollout import OverVllm, Rollouts
from vlmr1.settings.training import Optimisation, fits

OWN_REWARD = r"^([A-Za-z_]\w*\.)*[A-Za-z_]\w*:[A-Za-z_]\w*$"  # package.module:function


class SyncReference(Block):
    """A reference that follows the policy from afar."""

    ref_model_mixup_alpha: Share  # the policy's share in the mixture
    ref_model_sync_steps: Count


class Holdout(Block):
    """Training samples kept out of training and asked greedily along the way."""

    items: Count
    every: Count  # steps between two looks
    patience: Count | None  # looks without a new best before training stops; then the best policy is kept


class Grpo(Optimisation):
    """GRPO. A step is one optimiser step over `prompts_per_step` groups, on all processes together."""

    seed: int
    steps: Count
    prompts_per_step: Count
    num_generations: Annotated[int, Field(ge=2)]
    num_iterations: Count
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"]
    scale_rewards: Literal["group", "batch", "none"]
    epsilon: Rate | None  # the clip; without effect, hence null, with one iteration
    epsilon_high: Rate | None  # its upper side, where another is wanted; of cispo the cap on the ratio itself
    delta: Rate | None  # a bound on the ratio itself, where the advantage is negative
    beta: Annotated[float, Field(ge=0)]  # weight of the KL to the reference; 0 keeps no reference model
    use_bias_correction_kl: bool  # the KL weighted by the ratio, as TRL does it by default
    sync_ref_model: SyncReference | None
    temperature: Rate
    top_p: Annotated[float, Field(gt=0, lt=1)] | None
    top_k: Count | None
    min_p: Annotated[float, Field(gt=0, lt=1)] | None
    repetition_penalty: Rate | None
    max_prompt_length: Count | None  # tokens; longer prompts are left out, and counted
    max_completion_length: Count
    mask_truncated_completions: bool
    rewards: dict[str, float] = Field(min_length=1)  # weights by accuracy, a task's names or package.module:function
    share_prefix: bool  # false: every completion a sequence of its own, several times slower
    rollout: Rollouts | None  # null: in process
    holdout: Holdout | None
    log_rollouts: bool

    @model_validator(mode="after")
    def _iterations(self) -> Grpo:
        if self.loss_type == "cispo":
            if self.epsilon is not None or self.delta is not None:
                raise ValueError("epsilon, delta: cispo has but epsilon_high, its cap on the ratio; set both to null")
            if (self.num_iterations > 1) != (self.epsilon_high is not None) or (self.epsilon_high or 1) < 1:
                raise ValueError(
                    "epsilon_high: for cispo the ratio's cap, at least 1, e.g. 5.0; null with num_iterations 1, where"
                    " the ratio is exactly 1"
                )
        elif (self.num_iterations > 1) != (self.epsilon is not None):
            raise ValueError(
                "epsilon: with num_iterations 1 the ratio is exactly 1 and the clip has no effect: null;"
                " with more iterations it is needed, e.g. 0.2"
            )
        elif self.epsilon is None and (self.epsilon_high is not None or self.delta is not None):
            raise ValueError("epsilon_high, delta: with num_iterations 1 they have no effect; set both to null")
        elif self.delta is not None and self.delta <= 1 + (self.epsilon_high or self.epsilon or 0.0):
            raise ValueError("delta: a bound on the ratio itself, above 1 + epsilon_high")
        if self.steps % self.num_iterations:
            raise ValueError(f"steps: must be a multiple of num_iterations ({self.num_iterations})")
        fits(self, self.steps)
        return self

    @model_validator(mode="after")
    def _reward_names(self) -> Grpo:
        for name in self.rewards:
            if not name.isidentifier() and not re.match(OWN_REWARD, name):
                raise ValueError(f"rewards: {name!r} is neither a task's reward nor package.module:function")
        return self

    @model_validator(mode="after")
    def _reference(self) -> Grpo:
        if self.beta == 0 and (self.sync_ref_model is not None or self.use_bias_correction_kl):
            raise ValueError(
                "sync_ref_model, use_bias_correction_kl: with beta 0 there is no reference: null and false"
            )
        if self.sync_ref_model is not None and self.sync_ref_model.ref_model_sync_steps > self.steps:
            raise ValueError(f"sync_ref_model.ref_model_sync_steps: is beyond the run's {self.steps} steps")
        return self

    @model_validator(mode="after")
    def _sampled_elsewhere(self) -> Grpo:
        filters = [
            name for name in ("top_p", "top_k", "min_p", "repetition_penalty") if getattr(self, name) is not None
        ]
        if self.over_vllm is not None and self.over_vllm.correction.level != "off" and filters:
            raise ValueError(
                f"rollout.correction: with {filters[0]} the server's log-probs are of another distribution than the"
                f" policy's; set {', '.join(filters)} to null, or the correction's level to off and its cap to null"
            )
        return self

    @property
    def over_vllm(self) -> OverVllm | None:
        """The servers that sample, where any do."""
        return self.rollout if isinstance(self.rollout, OverVllm) else None

    @model_validator(mode="after")
    def _looks(self) -> Grpo:
        if self.holdout is not None and self.holdout.every > self.steps:
            raise ValueError(f"holdout.every: is beyond the run's {self.steps} steps")
        return self
