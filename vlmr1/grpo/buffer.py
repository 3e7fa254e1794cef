"""Rollouts as the trainer keeps them: over GRPO's further iterations, and over a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vlmr1.families.base import Prompt
from vlmr1.files import write_json
from vlmr1.grpo.policy import Features, Prefix

TENSORS = ("advantages", "old_logps", "reference_logps", "sampled_logps")


@dataclass
class Rollout:
    """The groups of one forward pass: B prompts with G completions each."""

    indices: list[int]  # of the prompts in the data set
    completions: list[list[list[int]]]  # [B][G][tokens]; one that is not trained on is empty
    advantages: torch.Tensor  # (B, G)
    tokens: int  # completion tokens trained on, in the whole step on all processes
    groups: int  # of the whole step on all processes
    prompts: list[Prompt] = field(default_factory=list)  # B; encoded again after a kill
    features: Features | None = None  # of a frozen tower
    prefix: Prefix | None = None  # prompts as read for the rollout, with the history of that reading
    old_logps: torch.Tensor | None = None  # (B, G, T) of the policy that sampled, where it may differ from the present
    reference_logps: torch.Tensor | None = None  # (B, G, T), when beta > 0
    sampled_logps: torch.Tensor | None = None  # (B, G, T) as a server sampled them, where one did


def save_rollouts(rollouts: Sequence[Rollout], folder: Path, rank: int) -> None:
    """Write one process's rollouts into a checkpoint."""
    tensors = {
        f"{i}.{name}": value.contiguous().cpu()
        for i, roll in enumerate(rollouts)
        for name in TENSORS
        if (value := getattr(roll, name)) is not None
    }
    save_file(tensors, folder / f"rollouts-{rank}.safetensors")
    plain = [{k: getattr(roll, k) for k in ("indices", "completions", "tokens", "groups")} for roll in rollouts]
    write_json(folder / f"rollouts-{rank}.json", plain)


def load_rollouts(folder: Path, rank: int, processes: int, device: torch.device) -> list[Rollout]:
    """The reverse; prompts and features are left to whoever knows the data.

    Raises ValueError where another number of processes saved theirs.
    """
    saved = len(list(folder.glob("rollouts-*.json")))
    if saved != processes:
        raise ValueError(
            f"compute.launch: {folder} was saved between two steps on one set of rollouts, by {saved} processes, and"
            f" {processes} run; go on with as many"
        )
    tensors = load_file(folder / f"rollouts-{rank}.safetensors")
    plain = json.loads((folder / f"rollouts-{rank}.json").read_text(encoding="utf-8"))
    rollouts = []
    for i, values in enumerate(plain):
        kept = {name: tensors[f"{i}.{name}"].to(device) for name in TENSORS if f"{i}.{name}" in tensors}
        rollouts.append(Rollout(**values, **kept))
    return rollouts


def in_passes(rollouts: Sequence[Rollout], size: int) -> list[Rollout]:
    """Loaded rollouts in passes of `size` prompts at most, for a run that takes fewer at once than who saved them."""
    parts = []
    for roll in rollouts:
        for start in range(0, len(roll.indices), size):
            part = slice(start, start + size)
            completions = roll.completions[part]
            longest = max(1, *(len(c) for group in completions for c in group))  # as they will be scored together
            cut = {
                name: value[part] if value.dim() == 2 else value[part, :, :longest]
                for name in TENSORS
                if (value := getattr(roll, name)) is not None
            }
            parts.append(Rollout(roll.indices[part], completions, tokens=roll.tokens, groups=roll.groups, **cut))
    return parts
