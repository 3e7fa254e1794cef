"""Small random checkpoints of the real classes, for tests and benchmarks: nothing is downloaded, nothing is learnt.

`write_random` leaves a folder as a published checkpoint has it: weights, tokenizer, chat template, image processor.
What is peculiar to a family stands in `random_parts`, the rest in `random_shared`. Grouped key heads, a vocabulary
wider than the tokenizer's and weights large enough that every wrong mask or position shows.
Left out on purpose: learning (`tiny` learns).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlmr1.families.random_parts import PARTS
from vlmr1.families.random_shared import Sizes


def write_random(model_type: str, folder: Path, seed: int = 0, **sizes: Any) -> None:
    """Write a random checkpoint of a supported `model_type`; `sizes` are fields of `Sizes`."""
    if model_type not in PARTS:
        raise ValueError(f"no random model of type {model_type!r}; there are {', '.join(PARTS)}")
    parts = PARTS[model_type](Sizes(**sizes))
    torch.manual_seed(seed)
    model = _stirred(parts.model_class(parts.config))
    model.generation_config.eos_token_id = parts.tokenizer.convert_tokens_to_ids(list(parts.ends))
    model.generation_config.pad_token_id = parts.tokenizer.pad_token_id
    for part in (model, parts.tokenizer, parts.images):
        part.save_pretrained(folder)


@torch.no_grad()
def _stirred(model: Any) -> Any:
    """Norms, biases and position embeddings off their even start, so that a fault in any of them shows."""
    for parameter in model.parameters():
        if parameter.ndim == 1 or bool((parameter == 0).all()):
            parameter += 0.1 * torch.randn_like(parameter)
    return model
