"""Rollouts: completions sampled from the policy, in process. The prompts are read once, all groups decode together.

Completions that have ended leave the batch. Evaluation decodes through the same function, with groups of one.
Left out on purpose: servers (`vlmr1.grpo.remote_rollout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vlmr1.families.base import Prompt
from vlmr1.grpo.attention import Decoding
from vlmr1.grpo.policy import Features, Policy, Prefix, pixels
from vlmr1.grpo.sampling import Sampling, draws_for
from vlmr1.products import packed

EVERY = 4  # steps between two looks at who has ended
WORTHWHILE = 0.8  # the share of the batch that must be left to shrink it


@torch.no_grad()
def sample_completions(
    policy: Policy,
    prompts: Sequence[Prompt],
    group: int,
    sampling: Sampling,
    keys: Sequence[object],
    prefix: Prefix | None = None,
    features: Features | None = None,
    told: Callable[[list[int]], object] | None = None,
) -> list[list[list[int]]]:
    """Token ids of `group` completions of each prompt, [B][G][tokens], each with its end token unless cut at length.

    `keys[b]` seeds prompt b's draws. `prefix` is what the policy already read of these prompts, if it did. `told` hears
    of the newest token of each completion, B·G of them, padding where one has ended. Raises FloatingPointError where
    the policy's logits are not finite.
    """
    training = policy.bare.training
    policy.bare.eval()
    try:
        with packed(policy.bare, len(prompts) * group, idle=policy.family.is_vision):
            return _decode(policy, prompts, group, sampling, keys, prefix, features, told)
    finally:
        policy.bare.train(training)


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    group: int,
    sampling: Sampling,
    keys: Sequence[object],
    prefix: Prefix | None,
    features: Features | None,
    told: Callable[[list[int]], object] | None,
) -> list[list[list[int]]]:
    family, device = policy.family, policy.device
    if policy.shared:
        prefix = policy.read(prompts, features) if prefix is None else prefix
        decoder: _Shared | _Copied = _Shared(policy, prefix, group, sampling.length)
    else:
        decoder = _Copied(policy, prompts, group)
    logits = decoder.first.detach()  # (B * G, V)
    draws = draws_for(keys, group, sampling.length).to(device).flatten(0, 1)  # (B * G, T)
    starts = torch.stack([p.positions.amax() + 1 for p in prompts]).repeat_interleave(group).to(device)
    said = None if sampling.repetition_penalty is None else _said(prompts, group).to(device)
    ends = torch.tensor(family.end_ids, device=device)
    tokens = torch.full((len(prompts) * group, sampling.length), family.pad_id, device=device)  # (B * G, T)
    done = torch.zeros(len(tokens), dtype=torch.bool, device=device)
    alive = torch.arange(len(tokens), device=device)  # which completion each row of the batch is
    for step in range(sampling.length):
        chosen = sampling.choose(sampling.distribution(logits, policy.never, said), draws[alive, step])
        tokens[alive, step] = chosen.where(~done[alive], family.pad_id)
        done[alive] |= torch.isin(chosen, ends)
        if told is not None:
            told(tokens[:, step].tolist())
        if step == sampling.length - 1 or bool(done.all()):
            break
        if said is not None:
            said = torch.cat([said, chosen[:, None]], dim=1)
        if (step + 1) % EVERY == 0:
            kept = decoder.shrink(done[alive])
            if kept is not None:
                alive, chosen = alive[kept], chosen[kept]
                said = None if said is None else said[kept]
        logits = decoder.step(chosen, starts[alive] + step)
        if not logits.isfinite().all():
            raise FloatingPointError("the policy's logits are not finite; its weights are broken")
    rows = [_cut(row, family.end_ids) for row in tokens.tolist()]
    return [rows[i : i + group] for i in range(0, len(rows), group)]


class _Shared:
    """Decoding over prompts that are held once a group."""

    def __init__(self, policy: Policy, prefix: Prefix, group: int, length: int) -> None:
        self.bare = policy.bare
        self.first = prefix.logits.repeat_interleave(group, dim=0)  # (B * G, V)
        self.state = Decoding(prefix.cache, prefix.tree.prompts, group, length)

    def step(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Next-token logits (R, V) after tokens (R,) at positions (R,)."""
        logits = self.bare(**_step(self.bare, tokens, positions), use_cache=False, layout=self.state).logits[:, -1]
        self.state.step += 1
        return logits

    def shrink(self, done: torch.Tensor) -> torch.Tensor | None:
        """Drop ended groups, and ended completions as far as all groups keep one size. Returns the rows kept."""
        running = ~done.view(self.state.groups, self.state.size)  # (B, g)
        groups = running.any(1).nonzero().squeeze(1)
        size = int(running.sum(1).max())
        if len(groups) * size > WORTHWHILE * len(done):
            return None
        order = (~running[groups]).int().argsort(dim=1, stable=True)[:, :size]  # running ones first
        rows = (groups[:, None] * self.state.size + order).flatten()
        self.state.keep(groups, rows)
        return rows


class _Copied:
    """Decoding over a prompt for each completion, with the model's own cache: for models that break the sharing."""

    def __init__(self, policy: Policy, prompts: Sequence[Prompt], group: int) -> None:
        self.bare = policy.bare
        width = max(len(p.ids) for p in prompts)
        ids = torch.tensor([[policy.family.pad_id] * (width - len(p.ids)) + p.ids for p in prompts])  # (B, P)
        mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
        padded = [torch.nn.functional.pad(p.positions, (width - len(p.ids), 0)) for p in prompts]
        positions = torch.stack(padded, dim=1)  # (A, B, P)
        pictures = [picture for p in prompts for _ in range(group) for picture in p.pictures]
        ids, mask, positions = (t.repeat_interleave(group, dim=-2).to(policy.device) for t in (ids, mask, positions))
        self.mask = mask
        beside = {name: one.to(policy.device) for name, one in policy.family.beside(ids).items()}
        output = self.bare(
            input_ids=ids, attention_mask=mask, position_ids=positions if len(positions) > 1 else positions[0],
            **beside, **(pixels(pictures, policy.device) if pictures else {}), use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        self.cache, self.first = output.past_key_values, output.logits[:, -1]
        if not self.first.isfinite().all():
            raise FloatingPointError("the policy's logits are not finite; its weights are broken")

    def step(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        arguments = _step(self.bare, tokens, positions) | {"attention_mask": self.mask}
        return self.bare(**arguments, past_key_values=self.cache, use_cache=True).logits[:, -1]

    def shrink(self, done: torch.Tensor) -> torch.Tensor | None:
        return None


def _step(bare: Any, tokens: torch.Tensor, positions: torch.Tensor) -> dict[str, Any]:
    """Forward arguments of one token a row."""
    axes = 3 if "mrope_section" in (bare.config.get_text_config().rope_parameters or {}) else 1
    column = positions[:, None]  # (R, 1)
    return {
        "input_ids": tokens[:, None],
        "position_ids": column.expand(axes, -1, -1) if axes > 1 else column,
        "attention_mask": {"full_attention": None},
    }


def _said(prompts: Sequence[Prompt], group: int) -> torch.Tensor:
    """(B * G, P) the prompts' tokens, for the repetition penalty; padding repeats the prompt's own first token."""
    width = max(len(p.ids) for p in prompts)
    return torch.tensor([[p.ids[0]] * (width - len(p.ids)) + p.ids for p in prompts for _ in range(group)])


def _cut(row: list[int], end_ids: list[int]) -> list[int]:
    """The row up to and with its first end token."""
    for i, token in enumerate(row):
        if token in end_ids:
            return row[: i + 1]
    return row
