"""Where answers come from: the model in this process. Left out on purpose: servers over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmr1.device import DTYPES, pick_device
from vlmr1.evaluation.asking import Chunk
from vlmr1.families import load_family
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.prompts import encode
from vlmr1.settings import Compute
from vlmr1.tasks import TASKS, read_of


class InProcess:
    """A checkpoint, loaded once, asked chunk by chunk."""

    def __init__(self, checkpoint: Path, compute: Compute, max_pixels: int, seed: int, length: int) -> None:
        """`seed` is that of the draws, `length` the most new tokens of an answer."""
        device = pick_device()
        self.family, self.seed, self.length = load_family(checkpoint, max_pixels), seed, length
        model = self.family.load_model(checkpoint, DTYPES[compute.dtype]).to(device).eval()
        # Questions set their own temperature; the policy's is only for log-probs.
        self.policy = Policy(model, model, self.family, 1.0, prepare(model, True) is None, device)

    def about(self) -> dict[str, Any]:
        """What shapes answers besides the settings: the template around each prompt, the ends, the forward pass."""
        template = self.family.tokenizer.chat_template
        return {"chat_template": template, "end_ids": self.family.end_ids, "shared_prefix": self.policy.shared}

    def ask(self, chunk: Chunk) -> list[dict[str, Any]]:
        """A row for each completion, items in the chunk's order: what was asked, said, how it was read and scored."""
        prompts = [encode(self.family, chunk.source, sample) for sample in chunk.samples]
        keys = [(self.seed, chunk.source.name, sample.id) for sample in chunk.samples]
        sampling = Sampling(chunk.temperature, self.length)
        groups = sample_completions(self.policy, prompts, chunk.completions, sampling, keys)
        rows = []
        for sample, prompt, group in zip(chunk.samples, prompts, groups, strict=True):
            task = TASKS[sample.task]
            for number, ids in enumerate(group):
                completion = self.family.decode(ids)
                said = task.answer(completion, sample, prompt.size)
                row = {"index": sample.id, "sample": number, "image": list(sample.images), "problem": sample.problem}
                row |= {"prompt": task.prompt(sample), "truth": sample.solution, "completion": completion}
                row |= {"input_size": [prompt.size[1], prompt.size[0]], "tokens": len(ids)}
                row |= read_of(said, sample.task) | {"problems": list(said.problems)}
                rows.append(row | task.score(said, sample))
        return rows
