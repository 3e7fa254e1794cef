"""grpo: reinforce the base on the training sources, to models/grpo. Run: `python -m vlmr1.stages.grpo`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from vlmr1.device import DTYPES
from vlmr1.families import load_family
from vlmr1.families.qwen_vl import QwenVL
from vlmr1.grpo.trainer import GrpoTrainer
from vlmr1.sample import Source, load_sources
from vlmr1.settings import Grpo, Params
from vlmr1.stages import BASE, CONVERTED, run_stage
from vlmr1.tasks import TASKS
from vlmr1.training import save_training
from vlmr1.work import fingerprint_of, inputs_of, open_work


def main(params: Params) -> None:
    settings = params.grpo
    sources = load_sources(CONVERTED, "train")
    about: dict[str, Any] = {"grpo": settings.model_dump(mode="json"), "compute": params.compute.model_dump()}
    about |= {"max_pixels": params.convert.max_pixels, "base": fingerprint_of(BASE)}
    work = open_work(Path("work/grpo"), about | {"data": inputs_of(CONVERTED, sources)})
    family = load_family(BASE, params.convert.max_pixels)
    model = family.load_model(BASE, torch.float32)
    reference = family.load_model(BASE, DTYPES[params.compute.dtype]) if settings.beta > 0 else None
    _check_length(family, sources, settings.max_completion_length)
    trainer = GrpoTrainer(model, reference, family, sources, settings, params.compute, work)
    rows = trainer.run()
    save_training("grpo", trainer, rows, Path("models/grpo"), summarise(rows, settings))


def _check_length(family: QwenVL, sources: list[Source], longest: int) -> None:
    """Refuse a completion limit that would cut off right answers, before any training."""
    for source in sources:
        for sample in source.samples:
            needed = len(family.encode_completion(TASKS[sample.task].target(sample, sample.sizes[0])))
            if needed > longest:
                raise ValueError(
                    f"grpo.max_completion_length: {longest} tokens cut off a right answer to {source.name} id"
                    f" {sample.id}, which takes {needed}; give it more"
                )


def summarise(rows: list[dict[str, float]], settings: Grpo) -> dict[str, Any]:
    """Reward at both ends of training, with its standard error, and the means of the last tenth.

    Rewards are counted once a set of rollouts: each set has its own prompts, so sets are the independent units.
    """
    sets = [row for row in rows if (row["step"] - 1) % settings.num_iterations == 0]
    tenth = max(1, len(sets) // 10)
    first, last = ([row["reward"] for row in part] for part in (sets[:tenth], sets[-tenth:]))
    gain = statistics.fmean(last) - statistics.fmean(first)
    figures: dict[str, Any] = {
        "prompts_seen": len(sets) * settings.prompts_per_step,
        "reward_first_tenth": statistics.fmean(first),
        "reward_last_tenth": statistics.fmean(last),
    }
    if tenth > 1:
        error = ((statistics.variance(first) + statistics.variance(last)) / tenth) ** 0.5
        figures["reward_gain_standard_error"] = error
        if error:
            figures["reward_gain_in_standard_errors"] = gain / error
    end = rows[-tenth * settings.num_iterations :]
    shown = ("completion_length", "parse_failure_rate", "zero_variance_share", "kl", "clip_share", "entropy")
    return figures | {f"{key}_last_tenth": statistics.fmean(r[key] for r in end) for key in shown if key in end[0]}


if __name__ == "__main__":
    run_stage("grpo", main)
