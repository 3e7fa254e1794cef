"""Where answers come from: the model in this process. Left out on purpose: servers over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlmr1.device import DTYPES, pick_device
from vlmr1.families import load_family
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.prompts import encode
from vlmr1.sample import Sample, Source
from vlmr1.settings import Compute, Evaluate
from vlmr1.tasks import TASKS


class InProcess:
    """A checkpoint, loaded once, asked in batches."""

    def __init__(self, checkpoint: Path, compute: Compute, settings: Evaluate, max_pixels: int) -> None:
        self.device, self.settings = pick_device(), settings
        self.family = load_family(checkpoint, max_pixels)
        model = self.family.load_model(checkpoint, DTYPES[compute.dtype]).to(self.device).eval()
        self.policy = Policy(model, model, self.family, settings.temperature, prepare(model, True) is None, self.device)

    def ask(
        self, source: Source, samples: Sequence[Sample], temperature: float, progress: Callable[[int], object]
    ) -> list[dict[str, Any]]:
        """One prediction for each sample, in order: completion, how it was read, how it scored.

        Temperature 0 is greedy.
        """
        predictions = []
        for start in range(0, len(samples), self.settings.batch):
            chunk = samples[start : start + self.settings.batch]
            predictions += self._ask(source, chunk, temperature)
            progress(len(chunk))
        return predictions

    def _ask(self, source: Source, samples: Sequence[Sample], temperature: float) -> list[dict[str, Any]]:
        prompts = [encode(self.family, source, sample) for sample in samples]
        keys = [(self.settings.seed, source.name, sample.id) for sample in samples]
        groups = sample_completions(self.policy, prompts, 1, Sampling(temperature, self.settings.max_new_tokens), keys)
        rows = []
        for sample, prompt, (ids,) in zip(samples, prompts, groups, strict=True):
            task, completion = TASKS[sample.task], self.family.decode(ids)
            said = task.answer(completion, sample, prompt.size)
            row = {"index": sample.id, "image": sample.images[0], "problem": sample.problem, "truth": sample.solution}
            row |= {"completion": completion, "input_size": [prompt.size[1], prompt.size[0]], "tokens": len(ids)}
            row |= {
                "box": None if said.box is None else [round(v, 2) for v in said.box],
                "problems": list(said.problems),
            }
            rows.append(row | task.score(said, sample))
        return rows
