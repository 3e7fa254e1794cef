"""A sharded policy held whole on every process for a while, so that each may decode as long as it likes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gathered_weights(bare: Any) -> Iterator[None]:
    """ZeRO-3's weights together, and none of its hooks, which part them again and meet the others at each call."""
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(bare.parameters())), _unhooked(bare):
        yield


@contextmanager
def _unhooked(model: Any) -> Iterator[None]:
    """A model without hooks."""
    kept = [(module, module._forward_pre_hooks, module._forward_hooks) for module in model.modules()]
    for module, *_ in kept:
        module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, before, after in kept:
            module._forward_pre_hooks, module._forward_hooks = before, after
