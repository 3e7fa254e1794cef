"""Answers from the model in this process, and the rows that answers become, wherever they come from.

Answers from servers: `over_http`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmr1.answers import Answer, read
from vlmr1.boxes import Size
from vlmr1.device import DTYPES, pick_device
from vlmr1.evaluation.asking import Chunk, Rows
from vlmr1.families import load_family
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.prompts import encode
from vlmr1.rewards.judge import foresee, judge_of_environment
from vlmr1.sample import Sample
from vlmr1.settings import Compute
from vlmr1.tasks import TASKS


class InProcess:
    """A checkpoint, loaded once, asked chunk by chunk."""

    def __init__(self, checkpoint: Path, compute: Compute, max_pixels: int, seed: int, length: int) -> None:
        """`seed` is that of the draws, `length` the most new tokens of an answer."""
        device = pick_device()
        self.family, self.seed, self.length = load_family(checkpoint, max_pixels), seed, length
        self.dtype = compute.dtype
        model = self.family.load_model(checkpoint, DTYPES[compute.dtype]).to(device).eval()
        # Questions set their own temperature; the policy's is only for log-probs.
        self.policy = Policy(model, model, self.family, 1.0, prepare(model, self.family, True) is None, device)

    def about(self) -> dict[str, Any]:
        """What shapes answers besides the settings: the template around each prompt, the ends, the forward pass."""
        template = self.family.tokenizer.chat_template
        of = {"engine": "in-process", "chat_template": template, "end_ids": self.family.end_ids}
        return of | {"shared_prefix": self.policy.shared, "dtype": self.dtype}

    def ask(self, chunk: Chunk) -> Rows:
        """A row for each completion, items in the chunk's order."""
        prompts = [encode(self.family, chunk.source, sample) for sample in chunk.samples]
        keys = [(self.seed, chunk.source.name, sample.id) for sample in chunk.samples]
        sampling = Sampling(chunk.temperature, self.length)
        groups = sample_completions(self.policy, prompts, chunk.completions, sampling, keys)
        said = [[self.family.decode(ids) for ids in group] for group in groups]
        lengths = [[len(ids) for ids in group] for group in groups]
        return rows_of(chunk.samples, [prompt.size for prompt in prompts], said, lengths)


def rows_of(
    samples: Sequence[Sample], sizes: Sequence[Size], said: Sequence[Sequence[str]], lengths: Sequence[Sequence[int]]
) -> Rows:
    """A row for each completion of each sample: what was asked, said, how it was read and scored.

    `sizes` are the frames of the prompts' coordinates, `lengths` the completions' tokens.
    """
    _foresee(samples, said)
    rows = []
    for sample, size, texts, tokens in zip(samples, sizes, said, lengths, strict=True):
        task = TASKS[sample.task]
        for number, (completion, length) in enumerate(zip(texts, tokens, strict=True)):
            answer = task.answer(completion, sample, size)
            row = {"index": sample.id, "sample": number, "image": list(sample.images), "problem": sample.problem}
            row |= {"prompt": task.prompt(sample), "truth": sample.solution, "completion": completion}
            row |= {"input_size": [size[1], size[0]], "tokens": length}
            row |= {"task": sample.task, "accu_reward_method": sample.reward, "size": [*map(list, sample.sizes)]}
            row |= _read(answer, sample.task) | {"problems": list(answer.problems)}
            rows.append(row | task.score(answer, sample))
    return rows


def _foresee(samples: Sequence[Sample], said: Sequence[Sequence[str]]) -> None:
    """Have the completions of rows that ask for a judge judged side by side."""
    wanted = [(one, text) for one, texts in zip(samples, said, strict=True) if one.reward == "llm" for text in texts]
    if wanted:
        foresee([(read(text), one.solution.strip(), one.problem) for one, text in wanted], judge_of_environment())


def _read(said: Answer, task: str) -> dict[str, Any]:
    """What was read: the box that counts, all boxes with their labels, or the words."""
    if task == "rec":
        return {"box": None if said.box is None else [round(v, 2) for v in said.box]}
    if task == "ovd":
        found = said.found if said.text is not None else ()
        return {"boxes": [[round(v, 2) for v in box] for box, _ in found], "labels": [label for _, label in found]}
    return {"said": said.said}
