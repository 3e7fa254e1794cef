"""Matrix products in fp32 on processors for which MKL is slow, by oneDNN instead: PyTorch brings both.

MKL gives AMD's processors kernels of half their vectors' width, oneDNN asks the processor what it can do; sums are
fp32's either way. Left out on purpose: other dtypes and GPUs, where PyTorch chooses well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

WORTHWHILE = 2**16  # numbers in a weight that is worth laying out anew for a few dozen products


@cache
def slow_mkl() -> bool:
    """Whether this is one of AMD's processors with AVX-512, and this PyTorch has oneDNN's product."""
    info = Path("/proc/cpuinfo")
    amd = info.is_file() and "AuthenticAMD" in info.read_text()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    # A private operator, which torch's version cap in pyproject.toml keeps as tested.
    return amd and wide and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x Wᵀ + b without a backward pass; x is (…, in), W (out, in)."""
    if slow_mkl() and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu":
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x Wᵀ + b, as PyTorch's own."""
    if not slow_mkl() or x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _Product.apply(x, weight, bias) if torch.is_grad_enabled() else product(x, weight, bias)


class Product(nn.Linear):
    """A linear layer whose product is oneDNN's."""

    packed: torch.Tensor | None = None  # the weight as oneDNN wants it, while it does not change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is not None and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return linear(x, self.weight, self.bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        flat = gradients[0].flatten(0, -2)  # (N, out)
        return (
            product(gradients[0], weight.t()) if by_x else None,
            product(flat.t(), x.flatten(0, -2).t()) if by_weight else None,
            flat.sum(0) if by_bias else None,
        )


def speed_up(model: nn.Module) -> None:
    """Give a model's linear layers the faster product, where there is one."""
    if slow_mkl():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Product


@contextmanager
def packed(model: nn.Module, rows: int, idle: Callable[[str], bool]) -> Iterator[None]:
    """Within it the weights do not change: those not `idle` are laid out for products with so many rows."""
    busy = [m for name, m in model.named_modules() if isinstance(m, Product) and not idle(name)]
    layers = [m for m in busy if m.weight.numel() >= WORTHWHILE]
    if not slow_mkl() or any(m.weight.dtype != torch.float32 or m.weight.device.type != "cpu" for m in layers):
        layers = []
    try:
        for layer in layers:
            layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
        yield
    finally:
        for layer in layers:
            layer.packed = None
