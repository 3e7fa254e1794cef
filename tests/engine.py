"""Small random engines for tests: a model of each kind, pictures, batches of prompts and completions, comparisons.

The shared way and the naive one get a copy each of the same weights. transformers' own forward and `generate` on one
sequence are the yardstick of both. Left out on purpose: any assertion.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlmr1.families import load_family
from vlmr1.families.base import Family, Prompt
from vlmr1.families.random import write_random
from vlmr1.files import write_json
from vlmr1.grpo.policy import Features, Policy, Scored, prepare

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_vl": ("qwen2_vl", {}),
    "qwen2_5_vl": ("qwen2_5_vl", {"tie_word_embeddings": True}),
    "internvl": ("internvl", {}),
    "internvl-qwen3": ("internvl", {"text_type": "qwen3", "tie_word_embeddings": True}),
    "internvl-llama": ("internvl", {"text_type": "llama"}),
}
NEW: dict[str, tuple[str, dict[str, Any]]] = {  # as far as test_families goes
    name: (name, {}) for name in ("qwen3_vl", "glm4v", "smolvlm", "idefics3", "gemma3")
}
MAX_PIXELS = {
    "qwen2_vl": 112 * 112,
    "qwen2_5_vl": 112 * 112,
    "qwen3_vl": 128 * 128,
    "internvl": 4 * 28 * 28,
    "glm4v": 112 * 112,
    "smolvlm": 4 * 28 * 28,
    "idefics3": 4 * 28 * 28,
    "gemma3": 56 * 56,
}
SIDES = {"a": (112, 84), "b": (56, 56), "c": (60, 140)}  # of the pictures
FIRST, LAST = 30, 299  # plain tokens of every kind
VANISHED = 1e-5  # of all gradients together
Batch = list[tuple[str, str, list[list[int]]]]  # a prompt's pictures, its text, its completions


def tokens(seed: int, *lengths: int) -> list[list[int]]:
    """A group of random completions of these lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST, LAST + 1, length).tolist() for length in lengths]


X = tokens(99, 12)[0]
BATCHES: dict[str, Batch] = {
    "one picture": [("a", "what is it?", tokens(0, 5, 1, 9))],
    "sizes": [
        ("a", "what?", tokens(1, 1, 3, 7)),
        ("b", "where is it?", tokens(2, 12, 5, 2)),
        ("c", "?", tokens(3, 4, 4, 1)),
    ],
    "several pictures": [("abc", "which?", tokens(4, 3, 6)), ("ba", "which one?", tokens(5, 1, 2))],
    "text only": [("", "hello", tokens(6, 1, 4)), ("", "hello you", tokens(7, 3, 2))],
    "mixed": [
        ("a", "what?", tokens(8, 3, 5)),
        ("", "hello", tokens(9, 4, 1)),
        ("bc", "which?", tokens(10, 2, 8)),
        ("b", "this?", tokens(11, 6, 3)),
    ],
    "one picture, several questions": [
        ("a", "what colour is it?", tokens(12, 3, 5)),
        ("a", "what colour has it?", tokens(13, 4, 1)),
        ("ab", "which?", tokens(14, 2, 8)),
        ("b", "why?", tokens(15, 2, 3)),
        ("a", "what colour is it?", tokens(16, 7, 3)),
    ],
    "completions alike": [
        ("a", "what?", [X, X, X[:8], X[:8] + X[9:], X[:2] + X[4:9], X[:1]]),
        ("b", "what?", [X[:1], X[:1], X[1:7], [*X[1:7], 39], X[1:2], [*X[1:6], 39, 40]]),
    ],
    "empty completions": [("a", "what?", [*tokens(17, 3), []]), ("b", "where?", [[], []])],
    "empty group": [("a", "what?", tokens(18, 3, 2)), ("b", "where?", []), ("c", "who?", tokens(19, 6))],
}


@dataclass
class Engine:
    """One kind of model with everything around it."""

    family: Family
    weights: torch.nn.Module  # fp32, as loaded; never changed

    def stock(self, dtype: torch.dtype = torch.float64) -> Any:
        """The model as transformers has it."""
        return copy.deepcopy(self.weights).to(dtype)

    def policy(self, shared: bool, dtype: torch.dtype = torch.float64, temperature: float = 0.9) -> Policy:
        """A policy on its own copy of the weights."""
        model = self.stock(dtype)
        prepare(model, self.family, shared)
        return Policy(model, model, self.family, temperature, shared, torch.device("cpu"))

    def prompts(self, batch: Batch) -> list[Prompt]:
        return [self.family.encode(text, [picture(n) for n in names], list(names)) for names, text, _ in batch]


def build(kind: str, folder: Path, **text: Any) -> Engine:
    """The engine of a kind; `text` overrides the language model's config."""
    model_type, sizes = (KINDS | NEW)[kind]
    write_random(model_type, folder, seed=0, **sizes)
    if text:
        config = json.loads((folder / "config.json").read_text())
        config["text_config"] |= text
        write_json(folder / "config.json", config)
    family = load_family(folder, MAX_PIXELS[model_type])
    return Engine(family, family.load_model(folder, torch.float32).eval())


def picture(name: str) -> Image.Image:
    """Noise, so that every patch differs."""
    width, height = SIDES[name]
    pixels = np.random.default_rng(ord(name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def completions(batch: Batch) -> list[list[list[int]]]:
    return [group for _, _, group in batch]


def features(policy: Policy, prompts: Sequence[Prompt]) -> Features:
    """Tower and projector run ahead, once a picture."""
    pictures = {picture.key: picture for prompt in prompts for picture in prompt.pictures}
    with torch.no_grad():
        made = policy.family.features(policy.bare, list(pictures.values()))
    return dict(zip(pictures, made, strict=True))


def backward(policy: Policy, scored: Scored) -> dict[str, torch.Tensor]:
    """Gradients, by parameter, of a fixed random combination of all log-probs."""
    weights = torch.randn(scored.logps.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    policy.bare.zero_grad(set_to_none=True)
    (scored.logps * weights).sum().backward()
    return {name: p.grad.clone() for name, p in policy.bare.named_parameters() if p.grad is not None}


def largest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest relative L2 difference of two sets of gradients; of one that vanishes, relative to all together.

    A key's bias moves all scores of a query alike where nothing rotates them: its gradient is 0 but for rounding.
    """
    lengths = {name: float(one.norm()) for name, one in theirs.items()}
    whole = sum(length**2 for length in lengths.values()) ** 0.5
    return max(
        float((ours[name] - theirs[name]).norm()) / (length if length > VANISHED * whole else whole)
        for name, length in lengths.items()
    )


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().abs().max())


def inputs_of(prompt: Prompt, family: Family, ids: list[int]) -> dict[str, torch.Tensor]:
    """What transformers' own forward and generate are called with for one sequence that begins with this prompt."""
    row = torch.tensor([ids])
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    if prompt.pictures:
        inputs |= {name: torch.cat([p.inputs[name] for p in prompt.pictures]) for name in prompt.pictures[0].inputs}
    inputs |= family.beside(row)
    if prompt.positions.shape[0] > 1:
        inputs["mm_token_type_ids"] = (row == family.image_id).int()
    return inputs


@torch.no_grad()
def stock_logps(model: Any, family: Family, prompt: Prompt, completion: list[int], temperature: float) -> torch.Tensor:
    """(T,) log-probs by transformers' plain forward over one sequence, with its own positions, mask and head."""
    logits = model(**inputs_of(prompt, family, prompt.ids + completion)).logits
    logits = logits[0, len(prompt.ids) - 1 : -1] / temperature  # (T, V)
    logits[:, family.never_sampled] = float("-inf")
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def stock_greedy(model: Any, family: Family, prompt: Prompt, length: int) -> list[int]:
    """Greedy tokens by transformers' `generate` on one prompt."""
    inputs = inputs_of(prompt, family, prompt.ids)
    row = model.generate(**inputs, max_new_tokens=length, do_sample=False, suppress_tokens=family.never_sampled)
    return row[0, len(prompt.ids) :].tolist()
