"""Attention over a tree as sequences of any lengths: its layout here, the CUDA kernel itself where there is one."""

import pytest
import torch

from vlmr1.families.base import Picture, Prompt
from vlmr1.grpo import attention
from vlmr1.grpo.attention import tree_layout
from vlmr1.grpo.tree import Tree

PICTURE = Picture("p", {}, 3, (28, 28))
PROMPTS = [
    Prompt([1, 9, 9, 9, 2, 3, 4], torch.arange(7)[None], (PICTURE,)),
    Prompt([1, 9, 9, 9, 2, 5], torch.arange(6)[None], (PICTURE,)),
    Prompt([6, 7], torch.arange(2)[None], ()),
]
COMPLETIONS = [
    [[10, 11, 12, 13, 14], [10, 11, 12, 13, 15, 16], [17]],
    [[18, 19], [18, 19], [20, 21, 22]],
    [[23, 24], [25], []],
]


def tree():
    return Tree().add_prompts(PROMPTS, image_id=9).add_completions(COMPLETIONS)


def by_loop(q, k, v, starts_q, starts_k, longest_q, longest_k, *, scale, window_size, enable_gqa):
    """What the kernel's documentation promises, one sequence after another."""
    assert window_size == (-1, 0) and enable_gqa
    out = []
    for (q0, q1), (k0, k1) in zip(starts_q.unfold(0, 2, 1).tolist(), starts_k.unfold(0, 2, 1).tolist(), strict=True):
        assert q1 - q0 <= longest_q and k1 - k0 <= longest_k
        many = q.shape[1] // k.shape[1]
        one_k, one_v = (t[k0:k1].repeat_interleave(many, 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[q0:q1], one_k) * scale
        last = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0))  # aligned at the end
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~last, float("-inf")).softmax(-1), one_v))
    return torch.cat(out)


def states(length, dtype=torch.float32, device="cpu"):
    torch.manual_seed(0)
    return [torch.randn(1, heads, length, 16, device=device).to(dtype) for heads in (4, 2, 2)]


def test_the_packed_layout_sees_what_the_padded_one_sees(monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", by_loop)
    whole = tree()
    q, k, v = states(whole.length)
    expected = tree_layout(whole, torch.device("cpu")).attend(0, q, k, v, 0.25)
    packed = attention._varlen(attention._packed(whole.nodes, torch.device("cpu")), q, k, v, 0.25)
    assert torch.allclose(packed, expected, atol=1e-6)


@pytest.mark.gpu
def test_the_kernel_agrees_in_bf16_with_fp32(monkeypatch):
    monkeypatch.setattr(attention, "VARLEN", True)
    whole, device = tree(), torch.device("cuda")
    q, k, v = states(whole.length, torch.bfloat16, device)
    layout = tree_layout(whole, device)
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    wide = [t.float().requires_grad_() for t in (q, k, v)]
    fast, exact = layout.attend(0, *leaves, 0.25), layout.attend(0, *wide, 0.25)
    assert (fast.float() - exact).abs().max() < 2e-2
    fast.float().square().sum().backward()
    exact.square().sum().backward()
    for a, b in zip(leaves, wide, strict=True):
        assert (a.grad.float() - b.grad).norm() < 2e-2 * b.grad.norm()
