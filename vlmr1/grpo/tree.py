"""The token tree: prompts and completions in one row, every token that several of them begin with standing there once.

Completions of a group share their prompt; questions about one picture share the picture; completions that begin alike
share their beginning. A row is `[prompts' nodes … | completions' nodes …]` without padding. A token sees its own
node's past and its ancestors, nothing else, and stands at the position it has in its own sequence, so log-probs and
gradients are those of separate full sequences.
Left out on purpose: the attention itself (`attention`) and the model's call (`policy`).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby

import torch

from vlmr1.families.base import Picture, Prompt

SHORTEST = 4  # tokens; a shorter common beginning is repeated, for each node costs an attention call its padding
Key = tuple[int, str]  # a token, and the picture that it stands for ("" for text)


@dataclass
class Node:
    """A run of tokens that all sequences below it share."""

    start: int  # its first column in the row
    ids: list[int]
    parent: Node | None
    positions: torch.Tensor  # (A, n)
    above: int = field(init=False)  # tokens of all its ancestors

    def __post_init__(self) -> None:
        self.above = 0 if self.parent is None else self.parent.above + len(self.parent.ids)

    def path(self) -> list[int]:
        """Columns of all ancestors' tokens, first to last."""
        if self.parent is None:
            return []
        return [*self.parent.path(), *range(self.parent.start, self.parent.start + len(self.parent.ids))]


@dataclass
class Tree:
    """One row. Columns below `split` are the prompts'."""

    nodes: list[Node] = field(default_factory=list)  # in the order of their columns
    pictures: list[Picture] = field(default_factory=list)  # in the order of their places in the row
    split: int = 0
    prompts: list[list[int]] = field(default_factory=list)  # B lists: the columns of each prompt's tokens
    ends: list[tuple[Node, torch.Tensor]] = field(default_factory=list)  # B: last node; (A,) first free position
    # What is asked of the head: token `tokens[i]`, predicted at column `asked[i]`.
    asked: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    index: torch.Tensor | None = None  # (B, G, T) which question answers each completion token; 0 on padding
    mask: torch.Tensor | None = None  # (B, G, T) bool

    @property
    def length(self) -> int:
        return self.nodes[-1].start + len(self.nodes[-1].ids) if self.nodes else 0

    def add_prompts(self, prompts: Sequence[Prompt], image_id: int, share: bool = True) -> Tree:
        """Begin a row with B prompts; `share` lets those that begin with the same picture share it."""
        keys = [_keys(prompt, image_id) for prompt in prompts]
        self.prompts = [[] for _ in prompts]
        leaves: dict[int, Node] = {}
        # Only a shared picture is worth a node of its own: prompts that begin with another one are kept apart.
        kin = [prompt.pictures[0].key if share and prompt.pictures else f"#{b}" for b, prompt in enumerate(prompts)]
        for name in dict.fromkeys(kin):
            self._grow(prompts, keys, [b for b, k in enumerate(kin) if k == name], 0, None, leaves)
        for b, prompt in enumerate(prompts):
            leaf = leaves[b]
            self.prompts[b] = [*leaf.path(), *range(leaf.start, leaf.start + len(leaf.ids))]
            self.ends.append((leaf, prompt.positions.amax() + 1))
        self.split = self.length
        return self

    def _grow(
        self,
        prompts: Sequence[Prompt],
        keys: list[list[Key]],
        members: list[int],
        start: int,
        parent: Node | None,
        leaves: dict[int, Node],
    ) -> None:
        """Nodes for the prompts `members`, whose first `start` tokens stand above."""
        shared = _common([keys[b] for b in members], start)
        whole = [b for b in members if len(keys[b]) == start + shared]
        if len(members) > 1 and shared < SHORTEST and not whole:
            for b in members:  # nothing worth sharing: each on its own
                self._grow(prompts, keys, [b], start, parent, leaves)
            return
        one = prompts[members[0]]
        stop = start + shared
        node = self._append(one.ids[start:stop], parent, one.positions[:, start:stop])
        # A picture's tokens may have others among them, but all of them stand in one node.
        ends = list(accumulate(picture.tokens for picture in one.pictures))
        visual = [sum(bool(name) for _, name in keys[members[0]][:column]) for column in (start, stop)]
        self.pictures += one.pictures[bisect(ends, visual[0]) : bisect(ends, visual[1])]
        for b in whole:
            leaves[b] = node
        rest = [b for b in members if b not in whole]
        for _, kin in groupby(sorted(rest, key=lambda b: keys[b][stop]), key=lambda b: keys[b][stop]):
            self._grow(prompts, keys, list(kin), stop, node, leaves)

    def add_completions(self, completions: Sequence[Sequence[Sequence[int]]], share: bool = True) -> Tree:
        """Hang B groups of completions under their prompts; an empty group is left out of the row."""
        longest = max((len(c) for group in completions for c in group), default=0)
        size = max(map(len, completions), default=0)
        index = torch.zeros(len(completions), size, longest, dtype=torch.long)
        mask = torch.zeros(len(completions), size, longest, dtype=torch.bool)
        for b, group in enumerate(completions):
            leaf, position = self.ends[b]
            last = leaf.start + len(leaf.ids) - 1  # the column that predicts a completion's first token
            found: dict[int, list[int]] = {g: [] for g in range(len(group))}  # the question of each token
            self._branch(group, list(range(len(group))), 0, leaf, last, position, found, share)
            for g, questions in found.items():
                index[b, g, : len(questions)] = torch.tensor(questions, dtype=torch.long)
                mask[b, g, : len(questions)] = True
        self.index, self.mask = index, mask
        return self

    def _branch(
        self,
        group: Sequence[Sequence[int]],
        members: list[int],
        start: int,
        parent: Node,
        last: int,
        position: torch.Tensor,
        found: dict[int, list[int]],
        share: bool,
    ) -> None:
        """Nodes for the completions `members`, whose first `start` tokens stand above; `last` predicts the next."""
        kin: dict[int, list[int]] = {}
        for g in members:
            if len(group[g]) > start:
                kin.setdefault(group[g][start] if share else g, []).append(g)
        for chosen in kin.values():
            shared = _common([group[g] for g in chosen], start)
            alike = all(len(group[g]) == start + shared for g in chosen)
            if len(chosen) > 1 and shared < SHORTEST and not alike:
                for g in chosen:
                    self._branch(group, [g], start, parent, last, position, found, share)
                continue
            ids = list(group[chosen[0]][start : start + shared])
            first = len(self.asked)
            self.tokens += ids
            for g in chosen:
                found[g] += range(first, first + shared)
            kept = ids[:-1] if alike else ids  # what nothing follows predicts nothing, and needs no column
            self.asked += [last, *range(self.length, self.length + shared - 1)]
            if kept:
                steps = torch.arange(start, start + len(kept))
                parent_of = self._append(kept, parent, (position + steps).expand(parent.positions.shape[0], -1))
                self._branch(group, chosen, start + shared, parent_of, self.length - 1, position, found, share)

    def _append(self, ids: Sequence[int], parent: Node | None, positions: torch.Tensor) -> Node:
        node = Node(self.length, list(ids), parent, positions)
        self.nodes.append(node)
        return node

    def row(self, completions_only: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (1, L) and positions (A, 1, L) of the row, or of its part after the prompts."""
        nodes = [n for n in self.nodes if not completions_only or n.start >= self.split]
        ids = torch.tensor([token for node in nodes for token in node.ids])
        return ids[None], torch.cat([node.positions for node in nodes], dim=1)[:, None]


def _keys(prompt: Prompt, image_id: int) -> list[Key]:
    """What tells a prompt's tokens apart: the token, and for a visual one its picture."""
    names = iter([p.key for p in prompt.pictures for _ in range(p.tokens)])
    return [(token, next(names) if token == image_id else "") for token in prompt.ids]


def _common(sequences: Sequence[Sequence[object]], start: int) -> int:
    """How many tokens from `start` on all sequences share."""
    first, length = sequences[0], min(map(len, sequences)) - start
    for offset in range(length):
        if any(s[start + offset] != first[start + offset] for s in sequences[1:]):
            return offset
    return length
