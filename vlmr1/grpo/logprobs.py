"""Log-probabilities and entropies in fp32, asked of the model's own head at the positions that matter, in pieces.

The head is given a question (which tokens, at what temperature) and answers in place of logits. It stays the same
module with the same weights, so wrappers that gather sharded weights or synchronise gradients work unchanged, and
logits of a large vocabulary never stand in memory whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlmr1.products import Product, product

BARRED = -1e30  # a logit whose probability is exactly 0
PIECE = 2**25  # logits held at once (128 MiB in fp32): 220 positions of a vocabulary of 152,000


@dataclass(frozen=True)
class Question:
    """What the next call of the head answers."""

    tokens: torch.Tensor  # (N,) the token asked about at each position
    temperature: float
    never: torch.Tensor  # ids of tokens that are never sampled


class LogProbHead(Product):
    """A language model's head that, asked a `Question`, answers (1, N, 2): log-probability and entropy in nats."""

    question: Question | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.question is None:
            return super().forward(hidden)
        q = self.question
        logps, entropies = token_logprobs(
            hidden.flatten(0, -2), self.weight, self.bias, q.tokens, q.temperature, q.never
        )
        return torch.stack([logps, entropies], dim=-1)[None]


def make_answering(model: Any) -> None:
    """Turn a model's head into a `LogProbHead`. Raises ValueError where the head is not one plain linear layer."""
    head = model.get_output_embeddings()
    if type(head) not in (nn.Linear, Product, LogProbHead):
        raise ValueError(f"the model's head is a {type(head).__name__}; log-probs need one plain linear layer")
    head.__class__ = LogProbHead


@contextmanager
def asking(model: Any, question: Question) -> Iterator[None]:
    """Within it, the model (unwrapped) answers `question` where it would give logits."""
    head = model.get_output_embeddings()
    head.question = question
    try:
        yield
    finally:
        head.question = None


def sampling_logits(logits: torch.Tensor, temperature: float, never: torch.Tensor) -> torch.Tensor:
    """Logits (…, V) as the policy is defined by them: fp32 or better, over the temperature, some tokens barred."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return logits.index_fill(-1, never, float("-inf"))


def logits_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, temperature: float, never: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from logits (…, V) already there, for `tokens` (…)."""
    logps = sampling_logits(logits, temperature, never).log_softmax(-1)
    with torch.no_grad():
        entropy = -(logps.exp() * logps.nan_to_num(neginf=0.0)).sum(-1)
    return logps.gather(-1, tokens[..., None]).squeeze(-1), entropy


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    tokens: torch.Tensor,
    temperature: float,
    never: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy (nats; without gradient), (N,) each, of tokens (N,) given hidden (N, H).

    `weight` (V, H), `bias` (V) or None. Logits are made `PIECE` at a time and, where one piece does not hold them
    all, made again in the backward pass.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(kind, enabled=False):  # which would sum the entropy in half precision
        return _Pieces.apply(hidden, weight, bias, tokens, temperature, never)


class _Pieces(torch.autograd.Function):
    """log softmax(hidden Wᵀ / τ)[token], whose gradient by the logits is (1[token] - p) / τ."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        tokens: torch.Tensor,
        temperature: float,
        never: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(1, PIECE // len(weight))
        kept = None
        logps, entropies = [], []
        for start in range(0, len(hidden), rows):
            logs = _log_distribution(product(hidden[start : start + rows], weight, bias), temperature, never)  # (n, V)
            logps.append(logs.gather(-1, tokens[start : start + rows, None]).squeeze(-1))
            kept = logs.exp()
            entropies.append(-torch.bmm(kept[:, None], logs[..., None]).flatten())
        if len(hidden) > rows or not any(ctx.needs_input_grad):
            kept = None  # what does not fit is made again in the backward pass
        ctx.save_for_backward(hidden, weight, bias, tokens, never, kept)
        ctx.temperature, ctx.rows = temperature, rows
        if not logps:
            empty = hidden.new_zeros(0, dtype=torch.promote_types(hidden.dtype, torch.float32))
            return empty, empty.clone()
        out = torch.cat(logps), torch.cat(entropies)
        ctx.mark_non_differentiable(out[1])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, tokens, never, kept = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        by_hidden = torch.empty_like(hidden) if wants_hidden else None
        by_weight = torch.zeros_like(weight, dtype=gradients[0].dtype) if wants_weight else None
        by_bias = torch.zeros_like(bias, dtype=gradients[0].dtype) if wants_bias else None
        for start in range(0, len(hidden), ctx.rows):
            piece = slice(start, start + ctx.rows)
            likely = kept  # (n, V)
            if likely is None:
                likely = _log_distribution(product(hidden[piece], weight, bias), ctx.temperature, never).exp_()
            slope = gradients[0][piece, None] / ctx.temperature  # (n, 1)
            by_logits = likely * -slope  # (n, V)
            by_logits.scatter_add_(-1, tokens[piece, None], slope.to(by_logits.dtype))
            narrow = by_logits.to(hidden.dtype)
            if by_hidden is not None:
                by_hidden[piece] = product(narrow, weight.t())
            if by_weight is not None:
                by_weight += product(narrow.T, hidden[piece].T)
            if by_bias is not None:
                by_bias += by_logits.sum(0)
        if by_weight is not None:
            by_weight = by_weight.to(weight.dtype)
        if by_bias is not None:
            by_bias = by_bias.to(bias.dtype)
        return by_hidden, by_weight, by_bias, None, None, None


def _log_distribution(logits: torch.Tensor, temperature: float, never: torch.Tensor) -> torch.Tensor:
    """Log of the policy's distribution (n, V) from fresh logits, which it overwrites where it can.

    Barred tokens get a finite log-probability, so that 0 times it is 0.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:
        logits.div_(temperature)
    return logits.index_fill_(-1, never, BARRED).log_softmax(-1)


def never_tensor(never: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(list(never), dtype=torch.long, device=device)
