"""A model asked for the log-probs of completions: over token trees, or each as a sequence of its own.

`Policy` is what rollout, reference and trainer call. It holds the model as it is called (perhaps wrapped for several
processes) and the bare model beneath, whose head answers questions. The naive way, each completion its own sequence
with its own pictures, is the fallback for models that break the sharing, and the yardstick for those that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from vlmr1.families.base import Family, Picture, Prompt
from vlmr1.grpo.attention import Cache, sharing_breaks, tree_layout, use_shared_prefix
from vlmr1.grpo.logprobs import Question, asking, logits_logprobs, make_answering, never_tensor
from vlmr1.grpo.tree import Tree
from vlmr1.products import speed_up

Completions = Sequence[Sequence[Sequence[int]]]  # [B][G][tokens]


@dataclass
class Scored:
    """What a policy says of B groups of G completions, T tokens at most. Padding holds 0."""

    logps: torch.Tensor  # (B, G, T)
    entropy: torch.Tensor  # (B, G, T), nats, without gradient
    mask: torch.Tensor  # (B, G, T) bool


@dataclass
class Prefix:
    """Prompts a model has read: a row of them with its keys, values and next-token logits."""

    tree: Tree
    cache: Cache
    logits: torch.Tensor  # (B, V) that predict each completion's first token


@dataclass
class Policy:
    """A model and how to ask it."""

    called: Any  # the model as it is called, wrapped or not
    bare: Any  # the model beneath, prepared by `prepare`
    family: Family
    temperature: float
    shared: bool
    device: torch.device  # where the model runs, which under DeepSpeed it does not yet when this is made
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # as around the model's own forward pass
    never: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.never = never_tensor(self.family.never_sampled, self.device)

    def score(self, prompts: Sequence[Prompt], completions: Completions, features: Features | None = None) -> Scored:
        """Log-probs of the completions in one forward pass."""
        if not self.shared:
            return self._score_apart(prompts, completions)
        tree = Tree().add_prompts(prompts, self.family.image_id).add_completions(completions)
        return _spread(tree, *self._ask(tree, tree_layout(tree, self.device), tree.pictures, features))

    def read(self, prompts: Sequence[Prompt], features: Features | None = None) -> Prefix:
        """Read prompts, once whatever is asked of them afterwards. With gradients enabled their history is kept."""
        tree, cache = Tree().add_prompts(prompts, self.family.image_id), Cache()
        last = [columns[-1] for columns in tree.prompts]
        layout = tree_layout(tree, self.device, keep=cache)
        ids, positions = tree.row()
        output = self.called(
            **self._row(ids, positions), **self._seen(tree.pictures, features), layout=layout,
            logits_to_keep=torch.tensor(last, device=self.device),
        )  # fmt: skip
        logits = output.logits[0]  # (B, V)
        if not logits.isfinite().all():
            raise FloatingPointError("the policy's logits are not finite; its weights are broken")
        return Prefix(tree, cache, logits)

    def score_after(self, prefix: Prefix, completions: Completions) -> Scored:
        """Log-probs of completions of prompts already read, with gradients through that reading."""
        tree = prefix.tree.add_completions(completions)
        asked = torch.tensor(tree.asked)
        tokens = torch.tensor(tree.tokens, device=self.device)
        first = asked < tree.split  # predicted by a prompt's last column, whose logits are there
        owners = {columns[-1]: b for b, columns in enumerate(tree.prompts)}
        rows = torch.tensor([owners[c] for c in asked[first].tolist()], device=self.device)
        logps = torch.zeros(len(asked), device=self.device, dtype=_wide(prefix.logits))
        entropy = torch.zeros_like(logps)
        early, late = first.nonzero().squeeze(1).to(self.device), (~first).nonzero().squeeze(1).to(self.device)
        one = logits_logprobs(prefix.logits[rows], tokens[early], self.temperature, self.never)
        logps, entropy = logps.index_copy(0, early, one[0]), entropy.index_copy(0, early, one[1])
        if len(late):
            layout = tree_layout(tree, self.device, past=prefix.cache)
            part = self._ask(tree, layout, (), None, late, asked[late.cpu()] - tree.split)
            logps, entropy = logps.index_copy(0, late, part[0]), entropy.index_copy(0, late, part[1])
        return _spread(tree, logps, entropy)

    def _ask(
        self,
        tree: Tree,
        layout: Any,
        pictures: Sequence[Picture],
        features: Features | None,
        which: torch.Tensor | None = None,
        columns: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs and entropies of the tree's questions, or of those `which`, predicted at `columns` of this row."""
        ids, positions = tree.row(completions_only=layout.past is not None)
        tokens = torch.tensor(tree.tokens, device=self.device)
        columns = torch.tensor(tree.asked) if columns is None else columns
        with asking(self.bare, Question(tokens if which is None else tokens[which], self.temperature, self.never)):
            output = self.called(
                **self._row(ids, positions), **self._seen(pictures, features), layout=layout,
                logits_to_keep=columns.to(self.device),
            )  # fmt: skip
        return output.logits[0, :, 0], output.logits[0, :, 1]

    def _row(self, ids: torch.Tensor, positions: torch.Tensor) -> dict[str, Any]:
        """Forward arguments of a row; a ready mapping of masks keeps the model from guessing one from positions."""
        positions = positions if len(positions) > 1 else positions[0]  # (A, R, L) with M-RoPE, else (R, L)
        return {
            "input_ids": ids.to(self.device),
            "position_ids": positions.to(self.device),
            "attention_mask": {"full_attention": None},
            "use_cache": False,
        }

    def _seen(self, pictures: Sequence[Picture], features: Features | None) -> dict[str, Any]:
        """Forward arguments of the row's pictures: what the tower made of them where that is known, else pixels."""
        if not pictures:
            return {}
        if features is not None:
            with self.autocast():  # the projector runs before the forward pass that would do it
                return self.family.project(self.bare, [features[p.key] for p in pictures])
        return pixels(pictures, self.device)

    def _score_apart(self, prompts: Sequence[Prompt], completions: Completions) -> Scored:
        """Each completion a sequence of its own, padded on the right, pictures repeated; stock attention."""
        rows = [(p, list(c)) for p, group in zip(prompts, completions, strict=True) for c in group]
        width = max(len(p.ids) + len(c) for p, c in rows)
        ids = torch.tensor([[*p.ids, *c, *[self.family.pad_id] * (width - len(p.ids) - len(c))] for p, c in rows])
        mask = torch.tensor([[1] * (len(p.ids) + len(c)) + [0] * (width - len(p.ids) - len(c)) for p, c in rows])
        positions = torch.stack([_followed(p, width) for p, _ in rows], dim=1)  # (A, R, L)
        arguments = self._row(ids, positions) | {"attention_mask": mask.to(self.device)}
        arguments |= {name: one.to(self.device) for name, one in self.family.beside(ids).items()}
        pictures = [picture for p, _ in rows for picture in p.pictures]
        first, last = min(len(p.ids) for p, _ in rows) - 1, width - 1
        tokens = ids[:, first + 1 :].to(self.device)  # (R, last - first)
        with asking(self.bare, Question(tokens.flatten(), self.temperature, self.never)):
            output = self.called(
                **arguments, **(pixels(pictures, self.device) if pictures else {}),
                logits_to_keep=torch.arange(first, last, device=self.device),
            )  # fmt: skip
        answers = output.logits[0].view(len(rows), last - first, 2)
        size, longest = max(map(len, completions)), max(len(c) for _, c in rows)
        steps = torch.arange(longest)
        begins = torch.tensor([len(p.ids) - 1 - first for p, _ in rows])
        columns = (begins[:, None] + steps).clamp(max=last - first - 1).to(self.device)  # (R, T)
        real = (steps < torch.tensor([len(c) for _, c in rows])[:, None]).to(self.device)
        picked = answers.gather(1, columns[..., None].expand(-1, -1, 2)).where(real[..., None], 0.0)
        # Groups may differ in size: each row goes to its own place among B * G.
        places = torch.tensor([b * size + g for b, group in enumerate(completions) for g in range(len(group))])
        shape, places = (len(completions), size, longest), places.to(self.device)
        laid = [
            values.new_zeros(len(completions) * size, longest).index_copy(0, places, values).view(shape)
            for values in (picked[..., 0], picked[..., 1].detach(), real)
        ]
        return Scored(*laid)


Features = dict[str, torch.Tensor]  # by a picture's key, what a frozen tower makes of it


def prepare(model: Any, family: Family, share: bool, attention: str = "sdpa") -> str | None:
    """Make a bare model answer questions and, if it can and `share`, attend over trees; else by `attention`, which
    in any case is its vision tower's.

    Returns why it cannot share, or None. Raises ValueError where its head cannot answer.
    """
    make_answering(model)
    speed_up(model)
    breaks = family.breaks or sharing_breaks(model)
    if share and breaks is None:
        use_shared_prefix(model, attention)
    elif attention != "sdpa":  # which models are loaded with
        model.set_attn_implementation(attention)
    return breaks


def pixels(pictures: Sequence[Picture], device: torch.device) -> dict[str, torch.Tensor]:
    """The pictures' forward arguments, joined in order."""
    return {name: torch.cat([p.inputs[name] for p in pictures]).to(device) for name in pictures[0].inputs}


def _followed(prompt: Prompt, width: int) -> torch.Tensor:
    """(A, width) positions of a prompt and of what follows it."""
    after = prompt.positions.amax() + 1 + torch.arange(width - len(prompt.ids))
    return torch.cat([prompt.positions, after.expand(len(prompt.positions), -1)], dim=1)


def _spread(tree: Tree, logps: torch.Tensor, entropy: torch.Tensor) -> Scored:
    """Answers laid out as (B, G, T)."""
    assert tree.index is not None and tree.mask is not None
    index, mask = tree.index.to(logps.device), tree.mask.to(logps.device)
    return Scored(logps[index].where(mask, 0.0), entropy.detach()[index].where(mask, 0.0), mask)


def _wide(logits: torch.Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)
