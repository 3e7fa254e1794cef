"""Which prompts each training step sees, fixed by a seed and known in advance."""

from __future__ import annotations

import random
from collections.abc import Iterator

from torch.utils.data import Sampler


class PromptSampler(Sampler[int]):
    """Yields `steps` batches of `batch` prompt indices, one after another, from as many shuffled passes as that takes.

    A pass visits every prompt at most once; a last incomplete batch is dropped. With `repeats` > 1 each batch comes
    that many times in a row, GRPO's further iterations over one set of rollouts; the further times a prompt is
    written -1 - index, so that nobody encodes it again. Its order does not depend on the number of processes, which
    share each batch among them; `len` counts exactly what it yields.
    """

    def __init__(self, prompts: int, batch: int, steps: int, seed: int, repeats: int = 1, keep_out: int = 0) -> None:
        """`keep_out` prompts, the last of a shuffle of all by the seed, are never yielded: they are `kept_out`."""
        if prompts - keep_out < batch:
            raise ValueError(
                f"{prompts - keep_out} samples cannot fill a step of {batch}; lower warmup.training.batch,"
                " grpo.prompts_per_step or grpo.holdout.items, or add data"
            )
        everyone = list(range(prompts))
        shuffled = random.Random(f"{seed}/holdout").sample(everyone, prompts)
        self.kept_out = sorted(shuffled[prompts - keep_out :])
        left_out = set(self.kept_out)
        self.prompts = [index for index in everyone if index not in left_out]
        self.batch, self.steps, self.seed, self.repeats = batch, steps, seed, repeats

    def __len__(self) -> int:
        return self.steps * self.batch

    def __iter__(self) -> Iterator[int]:
        done, epoch = 0, 0
        while done < self.steps:
            order = random.Random(f"{self.seed}/{epoch}").sample(self.prompts, len(self.prompts))
            for start in range(0, len(order) - self.batch + 1, self.batch):
                batch = order[start : start + self.batch]
                for again in range(self.repeats):
                    if done == self.steps:
                        return
                    yield from batch if not again else (-1 - index for index in batch)
                    done += 1
            epoch += 1
