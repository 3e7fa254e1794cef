"""Where the model runs, decided in one place, and what keeps a run repeatable there."""

from __future__ import annotations

import os

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # params' names


def pick_device() -> torch.device:
    """The accelerator that torch finds, or the CPU with one thread a process, which is faster beside other work."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        torch.set_num_threads(1)
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it had to guess
        return torch.device("cpu")
    return accelerator
