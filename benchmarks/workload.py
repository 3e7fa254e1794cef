"""What a GRPO benchmark works on and how it is metered: a random model of the real class, random pictures, the clock.

Every system loads the same folder: `Qwen2_5_VLForConditionalGeneration` with random weights, a tokenizer of bytes and
the ordinary image processor. End tokens are barred from sampling for all systems alike, with the
placeholders that would break a forward pass, so that every completion has exactly the asked length.
Left out on purpose: the systems themselves (`peers`) and the comparison (`grpo_step`).
"""

from __future__ import annotations

import ctypes
import gc
import json
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image

from vlmr1.families.random import write_random

SIDE = 28  # pixels of a visual token
ASKED = 41  # letters of a question, a token each; with the chat template 62 tokens beside the visual ones
WINDOW = 112  # pixels, of the tower's local attention, as in the published models
SIZES: dict[str, dict[str, Any]] = {
    # 10.8 M parameters of language and 2.8 M of vision: seconds a step on one core.
    "bench": {
        "vocabulary": 4096,
        "hidden_size": 256,
        "intermediate_size": 1376,
        "layers": 8,
        "heads": 8,
        "key_heads": 2,
        "vision_hidden_size": 192,
        "vision_intermediate_size": 512,
        "vision_depth": 4,
        "vision_heads": 4,
    },
    # 0.5 B of language, shaped as Qwen2.5-0.5B, and 0.1 B of vision: for a GPU.
    "large": {
        "vocabulary": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "layers": 24,
        "heads": 14,
        "key_heads": 2,
        "vision_hidden_size": 768,
        "vision_intermediate_size": 2048,
        "vision_depth": 12,
        "vision_heads": 12,
    },
}


@dataclass(frozen=True)
class Case:
    """One row of the comparison."""

    visual_tokens: int
    completion: int  # tokens
    group: int
    prompts: int  # a step
    beta: float = 0.04
    freeze_vision: bool = False
    checkpointing: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    size: str = "bench"
    attention: str = "sdpa"

    @property
    def picture(self) -> tuple[int, int]:
        """(width, height) in pixels, as near a square as the tokens allow."""
        rows = next(n for n in range(int(self.visual_tokens**0.5), 0, -1) if self.visual_tokens % n == 0)
        return self.visual_tokens // rows * SIDE, rows * SIDE

    @property
    def max_pixels(self) -> int:
        return self.visual_tokens * SIDE**2


def build_checkpoint(folder: Path, size: str) -> None:
    """Write model, tokenizer and image processor with random weights from one seed."""
    common = {"context": 32768, "tie_word_embeddings": True, "initializer_range": 0.02}
    write_random("qwen2_5_vl", folder, seed=0, **SIZES[size], **common)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["window_size"] = WINDOW
    (folder / "config.json").write_text(json.dumps(config))


def question(case: Case, number: int) -> tuple[str, Image.Image]:
    """Text and picture of one prompt; all differ, so that nothing is shared between questions."""
    rng = np.random.default_rng(number)
    width, height = case.picture
    text = "".join(rng.choice(list(string.ascii_lowercase), ASKED))
    return text, Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


class Meter:
    """The clock of one system's process, and its line to the comparison.

    CPU time of the process, or on a GPU wall time of the finished work. Memory is measured in rounds of its own,
    since looking for it costs time.
    """

    def __init__(self, device: str, orders: TextIO, reports: TextIO) -> None:
        self.elsewhere, self.orders, self.reports = device != "cpu", orders, reports
        self.phases: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        self.peak, self.looking, self.base = 0, False, 0
        self.started: float | None = None

    def now(self) -> float:
        if self.elsewhere:
            torch.accelerator.synchronize()
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.phases[name] = self.phases.get(name, 0.0) + self.now() - start

    def next(self) -> bool:
        """Report the step that has ended, if any, and wait for the next; False when there is none."""
        if self.started is not None:
            total = self.now() - self.started
            peak = self.peak if self.looking else None
            report = {"total": total, "phases": self.phases, "peak": peak, **self.facts}
            print(json.dumps(report), file=self.reports, flush=True)
        order = self.orders.readline().strip()
        self.phases, self.looking = {}, order == "memory"
        self.started = self.now()
        return bool(order)

    def watch(self) -> None:
        """The policy step begins: its peak counts from here."""
        if self.looking and self.elsewhere:
            torch.accelerator.reset_peak_memory_stats()
            self.base = torch.accelerator.memory_allocated()
        elif self.looking:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would hide the increase
            Path("/proc/self/clear_refs").write_text("5")
            self.base = _status("VmRSS")

    def seen(self) -> None:
        """The policy step has ended."""
        if self.looking:
            self.peak = (torch.accelerator.max_memory_allocated() if self.elsewhere else _status("VmHWM")) - self.base


def _status(name: str) -> int:
    """A size in bytes from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
