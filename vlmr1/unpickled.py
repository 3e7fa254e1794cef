"""What a training goes on from runs nothing: torch unpickles tensors and plain data alone, whoever asks it to.

The Trainer asks for no more, and DeepSpeed for everything; torch's own switch holds both to the first. What DeepSpeed
needs beside it are three classes of its own, which hold numbers.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torch reads it at every load


def know_deepspeed() -> None:
    """Let torch unpickle what DeepSpeed's checkpoints hold."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def member(kind: Any, name: str) -> Any:
        """An enumeration's member is pickled as `getattr` of its class and its name; no other may be asked for."""
        if kind is not ZeroStageEnum:
            raise pickle.UnpicklingError(f"getattr of {kind!r}")
        return ZeroStageEnum[name]

    torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address, (member, "builtins.getattr")])


@contextmanager
def plain(checkpoint: Path | None) -> Iterator[None]:
    """Go on from a checkpoint. Raises ValueError where torch found in it what is no plain data, before it was made."""
    try:
        yield
    except pickle.UnpicklingError:
        raise ValueError(
            f"{checkpoint}: holds what no training of this project writes, and is not read; remove it, and the training"
            " goes on from the checkpoint before, or begins anew"
        ) from None
