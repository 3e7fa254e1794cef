"""The GRPO trainer: roll out, score, compare within the group, step.

Each optimiser step sees `prompts_per_step` whole groups, a group never leaving its process. With `num_iterations` > 1
the same rollouts serve several steps, and the clipped ratio holds them near the policy that sampled. What a prompt's
completions are depends on the seed, the step and the prompt alone, so a resumed run, or one on more processes, samples
what any other would. With `rollout` servers sample instead (`vlmr1.grpo.remote_rollout`).

Ten lines train a policy:

    from pathlib import Path
    from vlmr1.grpo.trainer import GrpoTrainer
    from vlmr1.train import defaults, load_jsonl

    chosen = defaults(["steps=200", "prompts_per_step=4", "rewards={accuracy: 1.0, format: 1.0}"])
    source = load_jsonl(Path("train.jsonl"), images=Path("images"))
    trainer = GrpoTrainer(Path("base"), [source], chosen, Path("work/grpo"))
    trainer.run()
    trainer.save_policy(Path("policy"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers.trainer_callback import TrainerState

from vlmr1.families.base import Prompt
from vlmr1.grpo.advantages import advantages, zero_variance
from vlmr1.grpo.buffer import Rollout, in_passes, load_rollouts, save_rollouts
from vlmr1.grpo.correction import Mismatch, laid_out
from vlmr1.grpo.figures import Figures
from vlmr1.grpo.gathered import gathered_weights
from vlmr1.grpo.holdout import HoldoutLooks
from vlmr1.grpo.journal import Journal, question
from vlmr1.grpo.losses import Loss, policy_loss
from vlmr1.grpo.policy import Features, Prefix, Scored
from vlmr1.grpo.reference import FollowingReference, Reference, second_model
from vlmr1.grpo.remote_rollout import Group, RemoteRollout
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.grpo.scoring import Judged, Scorer
from vlmr1.launch import is_first
from vlmr1.prompts import Items
from vlmr1.sample import Source
from vlmr1.settings import Training
from vlmr1.training import VlmTrainer
from vlmr1.watching import logged_rows


class GrpoTrainer(VlmTrainer):
    """GRPO over prompts whose answers a task can score."""

    def __init__(self, checkpoint: Path, sources: Sequence[Source], chosen: Training, work: Path) -> None:
        """Raises ValueError, before anything long, for rewards, rows or an adapter that cannot work."""
        settings = chosen.grpo
        self.scorer = Scorer(settings.rewards, [sample for source in sources for sample in source.samples])
        super().__init__(
            checkpoint,
            sources,
            settings,
            chosen.trained,
            chosen.compute,
            work,
            max_pixels=chosen.max_pixels,
            seed=settings.seed,
            batch=settings.prompts_per_step,
            steps=settings.steps,
            repeats=settings.num_iterations,
            temperature=settings.temperature,
            share=settings.share_prefix,
            longest=settings.max_prompt_length,
            keep_out=0 if settings.holdout is None else settings.holdout.items,
        )
        self.grpo = settings
        self.sampling = Sampling(
            settings.temperature,
            settings.max_completion_length,
            settings.top_p,
            settings.top_k,
            settings.min_p,
            settings.repetition_penalty,
        )
        self.reference = self._make_reference(checkpoint) if settings.beta > 0 else None
        self.rollouts: list[Rollout] = []
        self.totals: dict[str, float] = {}  # figures of the present rollouts, over all processes
        self.sums: dict[str, float] = {}  # of the present step's passes, on this process
        self.journal = Journal(work, settings.log_rollouts)
        self.keeps_reading = (  # whether a rollout's reading of the prompts can serve the first backward pass
            self.policy.shared
            and settings.over_vllm is None
            and self.args.gradient_accumulation_steps == 1
            and not chosen.compute.activation_checkpointing
            and chosen.compute.deepspeed is None
            and (self.lora is None or self.lora.dropout == 0)
        )
        self.remote = None if settings.over_vllm is None else RemoteRollout(self, settings.over_vllm)
        self.mismatch = Mismatch()
        self.looks = None if settings.holdout is None else HoldoutLooks(self, settings.holdout)
        following = settings.sync_ref_model and FollowingReference(self, settings.sync_ref_model)
        for callback in (self.looks, self.remote, following):
            if callback is not None:
                self.add_callback(callback)

    def _make_reference(self, checkpoint: Path) -> Reference:
        if self.bare is not self.model:  # the base lies beneath the adapter
            mine = self.policy
            beneath = replace(mine, called=self.bare)
            return Reference(beneath, self.model)
        return second_model(
            checkpoint,
            self.family,
            torch.float32 if self.compute.deepspeed is None else self.device.torch_dtype,  # the policy's own
            self.args.device,
            self.grpo.temperature,
            self.policy.shared,
            self.accelerator.autocast,
            self.device.attention,
        )

    # The rollout of a step's groups.

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[list[dict[str, Rollout]], None]:
        """One rollout for each forward pass of the coming step: fresh ones, or those of the step before."""
        if self.control.should_training_stop:  # a run that had stopped, taken up again
            return [], None

        def fetch() -> Sequence[Mapping[str, Items]]:
            return VlmTrainer.get_batch_samples(self, epoch_iterator, num_batches, device)[0]

        batches = fetch() if self.remote is None else self.remote.batches(fetch)
        if self.state.global_step % self.grpo.num_iterations == 0 or not self.rollouts:
            self.rollouts = []
            try:
                self.rollouts = self._roll_out([batch["items"] for batch in batches])
            except FloatingPointError as error:  # the policy's own logits
                self.stop(str(error), [index for batch in batches for index, _ in batch["items"]])
        return [{"rollout": rollout} for rollout in self.rollouts], None

    def _roll_out(self, batches: Sequence[Items]) -> list[Rollout]:
        """Sample, score and compare the groups of a step, this process's share of them, all together."""
        step, indices = self.state.global_step, [index for batch in batches for index, _ in batch]
        prompts = [prompt for batch in batches for _, prompt in batch if isinstance(prompt, Prompt)]
        assert len(prompts) == len(indices)  # a fresh rollout's prompts are freshly encoded
        features = self._features(prompts)
        completions, sampled, prefix = self._sample(indices, prompts, features)
        self.scorer.foresee(
            (self.family.decode(c), self.prompts.sample(i))
            for i, group in zip(indices, completions, strict=True)
            for c in group
        )
        judged = [
            [self.judge(index, prompt, completion) for completion in group]
            for index, prompt, group in zip(indices, prompts, completions, strict=True)
        ]
        rewards = torch.tensor([[one.total for one in group] for group in judged])  # (B, G)
        cut = torch.tensor([[c[-1] not in self.family.end_ids for c in group] for group in completions])  # (B, G)
        figures = Figures(judged, completions, rewards, cut)
        self.totals = figures.means(self.over_processes)
        if self.remote is not None and sampled is not None:
            self.totals |= self.remote.figures(sampled)
        gains = advantages(rewards, self.grpo.scale_rewards, torch.tensor(self.totals["reward_std"]))
        trained_on = ~cut if self.grpo.mask_truncated_completions else torch.ones_like(cut)
        tokens, groups = self.over_processes(
            sum(len(c) for g, group in enumerate(completions) for i, c in enumerate(group) if trained_on[g, i]),
            len(prompts),
        )
        rows = figures.rows(step + 1, indices, [self.prompts.sample(index) for index in indices], gains)
        asked = [question(step + 1, index, *self.prompts.items[index]) for index in indices]
        self.totals["alarms"] = self.journal.write(step + 1, gather_object(rows), gather_object(asked), self.totals)
        rollouts, start = [], 0
        for batch in batches:
            part = slice(start, start := start + len(batch))
            kept = [
                [c if on else [] for c, on in zip(group, used, strict=True)]
                for group, used in zip(completions[part], trained_on[part].tolist(), strict=True)
            ]
            there = gains[part].to(self.args.device)
            rollout = Rollout(indices[part], kept, there, int(tokens), int(groups), prompts[part], features, prefix)
            self._drop_idle(rollout, zero_variance(rewards[part]))
            if sampled is not None:
                logps = [group.logps for group in sampled[part]]
                rollout.sampled_logps = laid_out(rollout.completions, logps).to(self.args.device)
            if self.reference is not None:
                with self.accelerator.autocast():
                    rollout.reference_logps = self._ask(self.reference.score, rollout).logps
            rollouts.append(rollout)
        return rollouts

    def _sample(
        self, indices: Sequence[int], prompts: Sequence[Prompt], features: Features | None
    ) -> tuple[list[list[list[int]]], list[Group] | None, Prefix | None]:
        """Completions, [B][G][tokens]; as servers gave them, where they did; and the prompts as read for it."""
        if self.remote is not None:
            groups = self.remote.sample(dict(zip(indices, prompts, strict=True)))
            return [group.tokens for group in groups], groups, None
        prefix = None
        if self.keeps_reading:
            self.bare.train()
            self.policy.called = self.model_wrapped
            prefix = self.policy.read([*prompts, *self.companion(prompts)], features)
        with self.whole_weights(), self.accelerator.autocast():
            self.policy.called = self.bare
            completions = sample_completions(
                self.policy,
                prompts,
                self.grpo.num_generations,
                self.sampling,
                [(self.grpo.seed, self.state.global_step, index) for index in indices],
                None if prefix is None else _reading(prefix, len(prompts)),
                features,
            )
        return completions, None, prefix

    def _drop_idle(self, rollout: Rollout, idle: torch.Tensor) -> None:
        """Empty the groups whose gradient is exactly zero: equal rewards, and no KL to hold them.

        bnpo divides by the tokens of the pass, theirs included, and so keeps them.
        """
        if self.grpo.beta > 0 or self.grpo.loss_type == "bnpo":
            return
        for b in idle.nonzero().flatten().tolist():
            rollout.completions[b] = [[] for _ in rollout.completions[b]]

    def _features(self, prompts: Sequence[Prompt]) -> Features | None:
        """What a frozen tower makes of a step's pictures: once, for rollout, reference and policy."""
        if not self.frozen_tower:
            return None
        everything = [*prompts, *([self.blank] if self.blank is not None else [])]
        pictures = {picture.key: picture for prompt in everything for picture in prompt.pictures}
        with torch.no_grad(), self.whole_weights(), self.accelerator.autocast():  # together, with pictures or without
            seen = self.family.features(self.bare, list(pictures.values())) if pictures else []
        return dict(zip(pictures, seen, strict=True))

    def whole_weights(self) -> AbstractContextManager[None]:
        """Under ZeRO-3, every process holds the whole policy while it decodes, and waits for no other."""
        sharded = self.compute.deepspeed is not None and self.compute.deepspeed.stage == 3
        return gathered_weights(self.bare) if sharded else nullcontext()

    def judge(self, index: int, prompt: Prompt, completion: list[int]) -> Judged:
        """Score one completion of a prompt of the data set."""
        text = self.family.decode(completion)
        tokens = sum(token not in self.family.end_ids for token in completion)
        return self.scorer.judge(text, self.prompts.sample(index), prompt.size, self.prompts.pictures(index), tokens)

    # The loss of a pass.

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """This pass's share of the step's loss."""
        rollout: Rollout = inputs["rollout"]
        alone = self.args.world_size == 1 and self.compute.deepspeed is None
        if alone and not any(c for group in rollout.completions for c in group):
            rollout.prefix = None
            trained = [p.flatten()[0] for p in model.parameters() if p.requires_grad]
            return 0.0 * torch.stack(trained).sum()  # gradients of zero, which the optimizer's moments must see
        scored = self._score(rollout)
        if rollout.old_logps is None:
            rollout.old_logps = scored.logps.detach()
        weights = None
        if rollout.sampled_logps is not None and self.grpo.over_vllm is not None:
            correction = self.grpo.over_vllm.correction
            weights = self.mismatch.weigh(rollout.old_logps, rollout.sampled_logps, scored.mask, correction)
        loss = policy_loss(
            scored.logps,
            rollout.old_logps,
            rollout.advantages,
            scored.mask,
            loss_type=self.grpo.loss_type,
            epsilon=self.grpo.epsilon or 0.2,  # with one iteration the ratio is 1, whatever the clip
            epsilon_high=self.grpo.epsilon_high or (1.0 if self.grpo.loss_type == "cispo" else None),
            delta=self.grpo.delta,
            beta=self.grpo.beta,
            reference_logps=rollout.reference_logps,
            total_tokens=rollout.tokens,
            total_completions=rollout.groups * self.grpo.num_generations,
            max_completion_length=self.grpo.max_completion_length,
            use_bias_correction_kl=self.grpo.use_bias_correction_kl,
            weights=weights,
        )
        self._note_loss(loss, scored)
        return loss.value * self.share_of_loss

    def _score(self, rollout: Rollout) -> Scored:
        """Log-probs of a rollout's completions by the present policy."""
        if not rollout.prompts:  # resumed between two iterations
            rollout.prompts = [self.encode(index) for index in rollout.indices]
            rollout.features = self._features(rollout.prompts)
        prefix, rollout.prefix = rollout.prefix, None
        if prefix is None or not any(c for group in rollout.completions for c in group):
            return self._ask(self.policy.score, rollout)
        mates = [self._end()] * len(self.companion(rollout.prompts))
        return _part(self.policy.score_after(prefix, [*rollout.completions, *mates]), len(rollout.prompts))

    def _ask(self, asked: Callable[..., Scored], rollout: Rollout) -> Scored:
        """Ask policy or reference about the groups that have something to score; laid out as all B.

        Where none has, one prompt is asked for nothing: processes step together, with gradients of zero if need be.
        """
        kept = [b for b, group in enumerate(rollout.completions) if any(group)]
        prompts = [rollout.prompts[b] for b in kept]
        mates = self.companion(prompts) or ([] if kept else rollout.prompts[:1])
        completions = [*(rollout.completions[b] for b in kept), *[self._end()] * len(mates)]
        scored = _part(asked([*prompts, *mates], completions, rollout.features), len(kept))
        where = torch.tensor(kept, dtype=torch.long, device=scored.mask.device)
        laid = [
            values.new_zeros(len(rollout.prompts), *values.shape[1:]).index_copy(0, where, values)
            for values in (scored.logps, scored.entropy, scored.mask)
        ]
        return Scored(*laid)

    def _end(self) -> list[list[int]]:
        """The group of a prompt that is asked for nothing: one completion, which only ends."""
        return [self.family.end_ids[:1], *[[] for _ in range(self.grpo.num_generations - 1)]]

    # What is shown, kept and taken up again.

    def _note_loss(self, loss: Loss, scored: Scored) -> None:
        """Add a pass's sums to the step's."""
        parts = {"kl": loss.kl, "clip_low": loss.clipped_low, "clip_high": loss.clipped_high}
        parts |= {"entropy": scored.entropy.sum(), "tokens": loss.tokens}
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step with the figures of its rollout and of its loss, the latter a token that was scored."""
        if "loss" in logs:
            names = ("kl", "clip_low", "clip_high", "entropy", "tokens")
            kl, low, high, entropy, tokens = self.over_processes(*(self.sums.get(name, 0.0) for name in names))
            tokens, self.sums = max(tokens, 1.0), {}
            if self.remote is not None:
                self.note(**self.journal.see(self.totals, self.mismatch.figures(self.over_processes, gather_object)))
            self.note(**self.totals, clip_low_share=low / tokens, clip_high_share=high / tokens)
            self.note(entropy=entropy / tokens, **({"kl": kl / tokens} if self.grpo.beta > 0 else {}))
        super().log(logs, start_time)

    def forget_after(self, step: int) -> None:
        self.journal.forget_after(step)

    def save_more(self, folder: Path) -> None:
        if self.state.global_step % self.grpo.num_iterations:
            save_rollouts(self.rollouts, folder, self.args.process_index)
        if self.remote is not None:
            self.remote.save(folder)
        if self.grpo.sync_ref_model is not None and self.reference is not None and self.is_world_process_zero():
            self.reference.policy.bare.save_pretrained(folder / "reference")

    def load_more(self, folder: Path) -> None:
        step = int(folder.name.rpartition("-")[2])
        if self.remote is not None:
            self.remote.load(folder)
        if step % self.grpo.num_iterations:
            saved = load_rollouts(folder, self.args.process_index, self.args.world_size, self.args.device)
            self.rollouts = in_passes(saved, self.args.per_device_train_batch_size)
        if (folder / "reference").is_dir() and self.reference is not None:
            bare = self.reference.policy.bare
            bare.load_state_dict(self.family.load_model(folder / "reference", bare.dtype).state_dict())
        state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        rows = [row for row in logged_rows(state) if (row["step"] - 1) % self.grpo.num_iterations == 0]
        self.totals = self.journal.replay(rows)

    def close(self) -> None:
        if self.remote is not None and is_first():
            self.remote.weights.close()

    def save_policy(self, folder: Path) -> None:
        """The best policy on the held-out samples where training may stop on them, else the last."""
        if self.looks is None or not self.looks.restore(folder):
            self.write_policy(folder)

    def describe_batch(self, indices: Sequence[int] | None) -> list[dict[str, Any]]:
        """The present rollouts with their completions and advantages, or the samples they would have been of."""
        return super().describe_batch(indices) + [
            self.describe(index) | {"completions": [self.family.decode(c) for c in group], "advantages": gains}
            for rollout in self.rollouts
            for index, group, gains in zip(
                rollout.indices, rollout.completions, rollout.advantages.tolist(), strict=True
            )
        ]


def _part(scored: Scored, groups: int) -> Scored:
    """The first groups. What is left out stays in the graph, with weight 0, so that every process has a gradient."""
    if len(scored.mask) == groups:
        return scored
    logps = scored.logps[:groups] + 0.0 * scored.logps[groups:].sum()
    return Scored(logps, scored.entropy[:groups], scored.mask[:groups])


def _reading(prefix: Prefix, prompts: int) -> Prefix:
    """The reading of the first prompts alone, to sample from: a blank one behind them is asked nothing."""
    return replace(
        prefix, tree=replace(prefix.tree, prompts=prefix.tree.prompts[:prompts]), logits=prefix.logits[:prompts]
    )
