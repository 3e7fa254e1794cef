"""Attention over token trees, reached through transformers' own attention interface: no model code is touched.

`layout` travels as one more keyword from the model's call to every attention layer. Training attends node by node,
nodes of like size in one call of PyTorch's scaled dot product attention (SDPA). On CUDA in half precision all nodes can
go to one call of flash attention over sequences of any lengths, without padding (`VARLEN`; not run on a GPU yet).
Decoding attends to prompts held once a group and to each completion's own past.
Left out on purpose: models with sliding windows, recurrent layers, attention sinks or soft caps (`sharing_breaks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from vlmr1.device import packs_sequences
from vlmr1.grpo.tree import Node, Tree

NAME = "shared_prefix"
VARLEN = False  # true: flash attention over all nodes at once; `benchmarks.grpo_step --attention` compares on CUDA
PADDING = 1.25  # nodes share a call while it computes at most this much more than they need


@dataclass(frozen=True)
class Call:
    """One SDPA call over n nodes, padded to Q queries and S keys."""

    queries: torch.Tensor  # (n * Q) columns of this row
    keys: torch.Tensor | None  # (n * S) columns of the keys; None where they are the queries' own
    visible: torch.Tensor | None  # (n, 1, Q, S) bool; None for plain causal attention
    nodes: int


@dataclass(frozen=True)
class Packed:
    """All nodes as sequences one after another, each of queries with the keys of its path and its own."""

    keys: torch.Tensor  # (sum of S) columns of the keys
    starts_q: torch.Tensor  # (n + 1) int32, where each node's queries begin in the row
    starts_k: torch.Tensor  # (n + 1) int32, where its keys begin in `keys`
    longest_q: int
    longest_k: int


@dataclass(frozen=True)
class Layout:
    """Which column sees which, for one forward pass over a tree's row or a part of it."""

    calls: tuple[Call, ...]
    packed: Packed | None  # on CUDA
    order: torch.Tensor  # (L,) where each column's result stands among the calls' results
    past: Cache | None = None  # keys and values of the prompts, where they were computed before
    keep: Cache | None = None  # where to leave this pass's keys and values

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """(1, L, H, D) from q (1, H, L, D), k and v (1, K, L, D) with K key heads."""
        if self.keep is not None:
            self.keep.append(layer, k, v)
        if self.past is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(self.past.layers[layer], (k, v), strict=True))
        if self.packed is not None and VARLEN and q.dtype in (torch.float16, torch.bfloat16):
            return _varlen(self.packed, q, k, v, scale)
        results = []
        fold = q.device.type == "cpu"  # elsewhere a mask and heads that share keys leave only the slowest kernel
        for call in self.calls:
            one_q = _rows(q, call.queries, call.nodes)  # (n, H, Q, D)
            keys = call.queries if call.keys is None else call.keys
            one_k, one_v = (_rows(t, keys, call.nodes) for t in (k, v))  # (n, K, S, D)
            if not fold:
                one_k, one_v = (_repeat(t, q.shape[1]) for t in (one_k, one_v))  # (n, H, S, D)
            out = F.scaled_dot_product_attention(
                one_q,
                one_k,
                one_v,
                attn_mask=call.visible,
                is_causal=call.visible is None,
                scale=scale,
                enable_gqa=fold,
            )
            results.append(out.transpose(1, 2).flatten(0, 1))  # (n * Q, H, D)
        return torch.cat(results)[self.order][None]


class Cache:
    """Keys and values of a row's columns, a pair (1, K, L, D) a layer, with their history for the backward pass."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        self.layers[layer] = (k, v)


class Decoding:
    """The state of decoding B groups of g completions: each prompt's keys and values once, each completion's own.

    A group's g completions ask its prompt together, so nothing of the prompt is copied.
    """

    def __init__(self, prompts: Cache, columns: Sequence[Sequence[int]], group: int, length: int) -> None:
        """`columns[b]` are prompt b's columns in the cached row; `length` is the most tokens to come."""
        longest = max(map(len, columns))
        device = prompts.layers[0][0].device
        index = torch.tensor([[*c, *[0] * (longest - len(c))] for c in columns], device=device)  # (B, P)
        real = torch.tensor([[True] * len(c) + [False] * (longest - len(c)) for c in columns], device=device)
        self.hidden = None if bool(real.all()) else ~real[:, None, None]  # (B, 1, 1, P)
        self.prompts = {  # (B, K, D, P) and (B, K, P, D)
            layer: (
                k.detach()[0][:, index].permute(1, 0, 3, 2).contiguous(),
                v.detach()[0][:, index].transpose(0, 1).contiguous(),
            )
            for layer, (k, v) in prompts.layers.items()
        }
        self.own: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # (B, K, g, length, D) each
        self.groups, self.size, self.length, self.step = len(columns), group, length, 0

    def keep(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        """Go on with some groups and, of each, the same number of completions: `rows` (B' * g') of the present."""
        self.prompts = {n: (k[groups], v[groups]) for n, (k, v) in self.prompts.items()}
        kept = rows.view(len(groups), -1) % self.size  # (B', g')
        self.own = {n: (_pick(k, groups, kept), _pick(v, groups, kept)) for n, (k, v) in self.own.items()}
        self.hidden = None if self.hidden is None else self.hidden[groups]
        self.groups, self.size = len(groups), len(rows) // len(groups)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """(R, 1, H, D) from this step's q (R, H, 1, D), k and v (R, K, 1, D), for R = B * g rows."""
        heads, width, kinds = q.shape[1], q.shape[3], k.shape[1]  # K key heads
        if layer not in self.own:
            shape = (self.groups, kinds, self.size, self.length, width)
            self.own[layer] = (k.new_empty(shape), v.new_empty(shape))
        for own, new in zip(self.own[layer], (k, v), strict=True):
            own[:, :, :, self.step] = new.view(self.groups, self.size, kinds, width).transpose(1, 2)
        own_k, own_v = (t[:, :, :, : self.step + 1].flatten(0, 2) for t in self.own[layer])  # (B*K*g, t, D)
        prompt_k, prompt_v = self.prompts[layer]
        # Query heads that share a key head (f of them), and completions that share a prompt, ask side by side.
        asked = (q * scale).view(self.groups, self.size, kinds, -1, width).transpose(1, 2).flatten(2, 3)  # (B,K,g*f,D)
        each = asked.reshape(len(own_k), -1, width)  # (B*K*g, f, D)
        shared = asked @ prompt_k  # (B, K, g*f, P)
        if self.hidden is not None:
            shared = shared.masked_fill(self.hidden, float("-inf"))
        mine = torch.bmm(each, own_k.transpose(1, 2)).view(*asked.shape[:3], -1)  # (B, K, g*f, t)
        scores = torch.cat([shared, mine], dim=-1)
        weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
        past = prompt_k.shape[-1]
        seen = (weights[..., :past] @ prompt_v).reshape(each.shape)  # (B*K*g, f, D)
        seen = torch.baddbmm(seen, weights[..., past:].reshape(*each.shape[:2], -1), own_v)
        return seen.view(self.groups, kinds, self.size, -1, width).transpose(1, 2).reshape(-1, 1, heads, width)


def _pick(states: torch.Tensor, groups: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """(B', K, g', length, D) of (B, K, g, length, D): of each chosen group the completions `kept` (B', g')."""
    return states[groups[:, None], :, kept].transpose(1, 2).contiguous()


def tree_layout(tree: Tree, device: torch.device, past: Cache | None = None, keep: Cache | None = None) -> Layout:
    """The layout of a tree's whole row, or with `past` of its completions alone, whose prompts' keys it holds."""
    first = 0 if past is None else tree.split
    nodes = [node for node in tree.nodes if node.start >= first]
    calls, places, offset = [], [0] * (tree.length - first), 0
    for lot in _alike(nodes):
        calls.append(_call(lot, first, device))
        width = max(len(node.ids) for node in lot)
        for i, node in enumerate(lot):
            begin = node.start - first
            places[begin : begin + len(node.ids)] = range(offset + i * width, offset + i * width + len(node.ids))
        offset += len(lot) * width
    packed = _packed(nodes, device) if VARLEN and packs_sequences(device.type) else None
    return Layout(tuple(calls), packed, torch.tensor(places, device=device), past, keep)


def _packed(nodes: Sequence[Node], device: torch.device) -> Packed:
    """Nodes are in the order of their columns, so their queries are the row as it is."""
    keys = [[*n.path(), *range(n.start, n.start + len(n.ids))] for n in nodes]
    starts = [torch.tensor([0, *map(len, lists)]).cumsum(0).int() for lists in ([n.ids for n in nodes], keys)]
    flat = torch.tensor([column for one in keys for column in one], device=device)
    longest = max(len(n.ids) for n in nodes), max(map(len, keys))
    return Packed(flat, starts[0].to(device), starts[1].to(device), *longest)


def _varlen(packed: Packed, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """(1, L, H, D). A node's queries are its last keys: causal, aligned at the end (window to the left alone)."""
    one_k, one_v = (t[0].index_select(1, packed.keys).transpose(0, 1) for t in (k, v))  # (sum of S, K, D)
    out = varlen_attn(
        q[0].transpose(0, 1),  # (L, H, D)
        one_k,
        one_v,
        packed.starts_q,
        packed.starts_k,
        packed.longest_q,
        packed.longest_k,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    return out[None]


def _alike(nodes: Sequence[Node]) -> list[list[Node]]:
    """Nodes in lots of like size, each for one call: padding adds at most `PADDING` to a lot's query-key pairs."""
    lots: list[list[Node]] = []
    wanted = queries = keys = 0  # of the present lot: pairs without padding, most queries, most keys
    for node in sorted(nodes, key=lambda n: (n.parent is not None, n.above, len(n.ids))):
        q, k = len(node.ids), node.above + len(node.ids)
        most_q, most_k = max(queries, q), max(keys, k)
        joins = lots and (lots[-1][0].parent is None) == (node.parent is None)
        if joins and (len(lots[-1]) + 1) * most_q * most_k <= PADDING * (wanted + q * k):
            lots[-1].append(node)
            wanted, queries, keys = wanted + q * k, most_q, most_k
        else:
            lots.append([node])
            wanted, queries, keys = q * k, q, k
    return lots


def _call(nodes: Sequence[Node], first: int, device: torch.device) -> Call:
    """One call over some nodes; padding repeats a column and is not visible."""
    queries = [list(range(n.start - first, n.start - first + len(n.ids))) for n in nodes]
    width = max(map(len, queries))
    flat = torch.tensor([[*q, *[q[-1]] * (width - len(q))] for q in queries], device=device)  # (n, Q)
    paths = [n.path() for n in nodes]
    if not any(paths) and (len(nodes) == 1 or all(len(q) == width for q in queries)):
        return Call(flat.flatten(), None, None, len(nodes))
    above = max(map(len, paths))
    # Keys: the path, padded on its right, then the node's own tokens. Key columns count from the prompts' first.
    own = flat + first
    keys = torch.cat([torch.tensor([[*p, *[0] * (above - len(p))] for p in paths], device=device).long(), own], dim=1)
    lengths = torch.tensor([len(p) for p in paths], device=device)
    column = torch.arange(above, device=device)
    seen = (column < lengths[:, None])[:, None].expand(-1, width, -1)  # (n, Q, above)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril().expand(len(nodes), -1, -1)
    return Call(flat.flatten(), keys.flatten(), torch.cat([seen, causal], dim=2)[:, None], len(nodes))


def _rows(states: torch.Tensor, columns: torch.Tensor, nodes: int) -> torch.Tensor:
    """(n, H, S, D) from (1, H, L, D): the columns (n * S) of each node."""
    return states[0].index_select(1, columns).unflatten(1, (nodes, -1)).transpose(0, 1)


def _repeat(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Key heads repeated so that each query head has its own."""
    return states if states.shape[1] == heads else states.repeat_interleave(heads // states.shape[1], dim=1)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float,
    layout: Layout | Decoding,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: (1, L, H, D) and no weights. Raises ValueError for what it cannot do."""
    odd = [name for name in ("sliding_window", "softcap", "s_aux") if kwargs.get(name) is not None]
    if odd:
        raise ValueError(
            f"attention over trees knows no {odd[0]}, which this model has; set grpo.share_prefix to false"
        )
    if value.dtype in (torch.float16, torch.bfloat16):  # under autocast the rotation leaves queries and keys in fp32
        query, key = query.to(value.dtype), key.to(value.dtype)
    return layout.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(NAME, _attention)


def sharing_breaks(model: Any) -> str | None:
    """Why this model's completions cannot share their prompt exactly; None where they can."""
    text = model.config.get_text_config()
    known = getattr(text, "layer_types", None)
    kinds = set(known or ["full_attention"]) - {"full_attention"}
    if kinds:
        return f"its layers are not all of full attention ({', '.join(sorted(kinds))})"
    if not known and getattr(text, "sliding_window", None):
        return "its attention slides over a window"
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logits_scaling", "attention_chunk_size"):
        if getattr(text, name, None):
            return f"its config has {name}"
    if getattr(text, "attention_dropout", 0.0):
        return "it drops attention weights at random"
    if any("sinks" in name.split(".") for name, _ in model.named_parameters()):
        return "it has attention sinks"
    return None


def use_shared_prefix(model: Any, tower: str = "sdpa") -> None:
    """Make a model's language layers attend over trees, its vision tower by one of transformers' own ways."""
    parts = {name: tower for name in model.config.sub_configs}
    parts["text_config"] = NAME
    model.set_attn_implementation(parts)
