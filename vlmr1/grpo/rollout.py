"""Rollouts: completions sampled from the policy, in process. The prompt is read once, its cache repeated for the group.

Evaluation decodes through the same function, greedily or at a temperature.
Left out on purpose: servers, dropping finished rows, top-p and its kin.
"""

from __future__ import annotations

from typing import Any

import torch

from vlmr1.families.qwen_vl import Batch, QwenVL
from vlmr1.grpo.logprobs import sampling_logits


@torch.no_grad()
def sample_completions(
    model: Any,
    family: QwenVL,
    batch: Batch,
    group: int,
    length: int,
    temperature: float,
    generator: torch.Generator | None,
) -> list[list[list[int]]]:
    """Token ids of `group` completions of each prompt, [B][G][tokens], each with its end token unless cut at `length`.

    Temperature 0 is greedy and draws nothing. Image tokens are never sampled. Raises FloatingPointError where the
    policy's logits are not finite.
    """
    training = model.training
    model.eval()
    prompt = model(  # (B, P) once, whatever the group's size
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        logits_to_keep=1,
        use_cache=True,
    )
    cache = prompt.past_key_values
    cache.batch_repeat_interleave(group)
    logits = prompt.logits[:, -1].repeat_interleave(group, dim=0)  # (B*G, V)
    if not logits.isfinite().all():
        raise FloatingPointError("the policy's logits are not finite; its weights are broken")
    mask = batch.attention_mask.repeat_interleave(group, dim=0)  # (B*G, P + steps)
    start = batch.next_position.repeat_interleave(group)  # (B*G,)
    ends = torch.tensor(family.end_ids, device=logits.device)
    done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    columns: list[torch.Tensor] = []
    for step in range(length):
        tokens = _choose(logits, temperature, family.never_sampled, generator)  # (B*G,)
        columns.append(tokens)
        done |= torch.isin(tokens, ends)
        if step == length - 1 or bool(done.all()):
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=(start + step).expand(3, -1)[..., None],  # (3, B*G, 1)
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    model.train(training)
    rows = [_cut(row, family.end_ids) for row in torch.stack(columns, dim=1).tolist()]
    return [rows[i : i + group] for i in range(0, len(rows), group)]


def _choose(
    logits: torch.Tensor, temperature: float, never: list[int], generator: torch.Generator | None
) -> torch.Tensor:
    """The next token of each row, (B*G,)."""
    if temperature == 0:
        return sampling_logits(logits, 1.0, never).argmax(-1)
    probabilities = sampling_logits(logits, temperature, never).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def _cut(row: list[int], end_ids: list[int]) -> list[int]:
    """The row up to and with its first end token."""
    for i, token in enumerate(row):
        if token in end_ids:
            return row[: i + 1]
    return row
