"""Which prompts each training step sees, fixed by a seed and known in advance."""

from __future__ import annotations

import random
from collections.abc import Iterator

from torch.utils.data import Sampler


class PromptSampler(Sampler[int]):
    """Yields `steps` batches of `batch` prompt indices, one after another, from as many shuffled passes as that takes.

    A pass visits every prompt at most once; a last incomplete batch is dropped. With `repeats` > 1 each batch comes
    that many times in a row: GRPO's further iterations over one set of rollouts.
    """

    def __init__(self, prompts: int, batch: int, steps: int, seed: int, repeats: int = 1) -> None:
        if prompts < batch:
            raise ValueError(
                f"{prompts} samples cannot fill a step of {batch}; lower warmup.training.batch or"
                " grpo.prompts_per_step, or add data"
            )
        self.prompts, self.batch, self.steps, self.seed, self.repeats = prompts, batch, steps, seed, repeats

    def __len__(self) -> int:
        return self.steps * self.batch

    def __iter__(self) -> Iterator[int]:
        done, epoch = 0, 0
        while done < self.steps:
            order = random.Random(f"{self.seed}/{epoch}").sample(range(self.prompts), self.prompts)
            for start in range(0, self.prompts - self.batch + 1, self.batch):
                for _ in range(self.repeats):
                    if done == self.steps:
                        return
                    yield from order[start : start + self.batch]
                    done += 1
            epoch += 1
