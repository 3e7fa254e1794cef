"""Logits of many completions of each prompt, with prompt and picture processed once a group.

A row holds one prompt and its G completions side by side: `[padding | P | c1 | c2 | … | cG]`. A completion sees its
prompt and its own past, never its siblings, and its positions restart after the prompt's. Gradients equal those of
G separate full sequences. G = 1 is plain teacher forcing, which supervised training uses.
Left out on purpose: rows without padding and attention that skips the masked blocks; a dense mask is exact everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vlmr1.families.qwen_vl import Batch


def pad_completions(completions: Sequence[Sequence[Sequence[int]]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B groups of G completions of any lengths as ids (B, G, T), padded on the right, and their mask (B, G, T)."""
    longest = max(len(c) for group in completions for c in group)
    ids = torch.tensor([[[*c, *[pad_id] * (longest - len(c))] for c in group] for group in completions])
    mask = torch.tensor([[[1] * len(c) + [0] * (longest - len(c)) for c in group] for group in completions])
    return ids, mask


def completion_logits(model: Any, batch: Batch, completions: torch.Tensor) -> torch.Tensor:
    """Logits that predict each completion token, (B, G, T, V), for completion ids (B, G, T).

    Positions past a completion's end are padding: their logits mean nothing and are masked by the caller.
    """
    groups, size, length = completions.shape
    prompt = batch.input_ids.shape[1]
    steps = torch.arange(length, device=completions.device)  # (T,)
    positions = (batch.next_position[:, None] + steps).repeat(1, size)  # (B, G*T)
    # The token at step t is predicted one column earlier; step 0 by the prompt's last column, shared by the group.
    starts = prompt + length * torch.arange(size, device=completions.device)  # (G,) column of each completion
    predicting = torch.where(steps > 0, starts[:, None] + steps - 1, prompt - 1).flatten()  # (G*T,)
    output = model(
        input_ids=torch.cat([batch.input_ids, completions.flatten(1)], dim=1),  # (B, P + G*T)
        attention_mask=_visible(batch.attention_mask.bool(), size, length),
        position_ids=torch.cat([batch.position_ids, positions.expand(3, -1, -1)], dim=2),  # (3, B, P + G*T)
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        logits_to_keep=predicting,
        use_cache=False,
    )
    return output.logits.view(groups, size, length, -1)


def _visible(prompt: torch.Tensor, size: int, length: int) -> torch.Tensor:
    """Which column (last axis) each column may attend to, (B, 1, L, L) bool with L = P + G*T; `prompt` is (B, P)."""
    own = torch.cat([torch.zeros(prompt.shape[1]), 1 + torch.arange(size).repeat_interleave(length)])  # (L,)
    own = own.to(prompt.device)
    same = (own[:, None] == own) | (own == 0)  # a completion's own columns, and every prompt column
    causal = torch.ones_like(same).tril() & same  # (L, L)
    real = torch.cat([prompt, prompt.new_ones(len(prompt), size * length)], dim=1)  # (B, L)
    itself = torch.eye(len(own), dtype=torch.bool, device=prompt.device)  # a padding row must see something
    return ((causal & real[:, None]) | itself)[:, None]
