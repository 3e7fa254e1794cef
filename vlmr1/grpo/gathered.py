"""A sharded policy held whole on every process for a while, so that each may decode as long as it likes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def gathered_weights(bare: Any) -> Iterator[None]:
    """ZeRO-3's weights together, and none of its hooks, which part them again and meet the others at each call."""
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(bare.parameters())), _unhooked(bare):
        yield


def gathered_trained(model: Any) -> dict[str, torch.Tensor]:
    """What trains of a model that DeepSpeed holds, sharded or not, on the CPU; called on every process."""
    import deepspeed

    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    with deepspeed.zero.GatheredParameters(list(trained.values())):
        return {name: one.detach().to("cpu", copy=True) for name, one in trained.items()}


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
