"""grpo: reinforce the base on the training sources, to models/grpo. Run: `python -m vlmr1.stages.grpo`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from vlmr1.device import DTYPES
from vlmr1.families import load_family
from vlmr1.grpo.trainer import GrpoTrainer
from vlmr1.sample import load_sources
from vlmr1.settings import Grpo, Params
from vlmr1.stages import BASE, CONVERTED, run_stage
from vlmr1.training import save_training
from vlmr1.work import fingerprint_of, open_work


def main(params: Params) -> None:
    settings = params.grpo
    about = {"grpo": settings.model_dump(mode="json"), "compute": params.compute.model_dump()}
    work = open_work(Path("work/grpo"), about | {"base": fingerprint_of(BASE), "data": fingerprint_of(CONVERTED)})
    family = load_family(BASE, params.convert.max_pixels)
    model = family.load_model(BASE, torch.float32)
    reference = family.load_model(BASE, DTYPES[params.compute.dtype]) if settings.beta > 0 else None
    sources = load_sources(CONVERTED, "train")
    trainer = GrpoTrainer(model, reference, family, sources, settings, params.compute, work)
    rows = trainer.run()
    save_training("grpo", trainer, rows, Path("models/grpo"), summarise(rows, settings))


def summarise(rows: list[dict[str, float]], settings: Grpo) -> dict[str, Any]:
    """Reward at both ends of training, with the standard error over steps, and the means of the last tenth."""
    prompts_seen = settings.steps // settings.num_iterations * settings.prompts_per_step
    rows = [row for row in rows if (row["step"] - 1) % settings.num_iterations == 0]  # one a set of rollouts
    tenth = max(1, len(rows) // 10)
    first, last = rows[:tenth], rows[-tenth:]

    def mean(part: list[dict[str, float]], key: str) -> float:
        return statistics.fmean(row[key] for row in part)

    figures: dict[str, Any] = {"prompts_seen": prompts_seen}
    figures["reward_first_tenth"], figures["reward_last_tenth"] = mean(first, "reward"), mean(last, "reward")
    if tenth > 1:  # each set has its own prompts, so sets are the independent units
        errors = [statistics.stdev(row["reward"] for row in part) / tenth**0.5 for part in (first, last)]
        error = (errors[0] ** 2 + errors[1] ** 2) ** 0.5
        gain = figures["reward_last_tenth"] - figures["reward_first_tenth"]
        figures["reward_gain_standard_error"] = error
        if error:
            figures["reward_gain_in_standard_errors"] = gain / error
    shown = ("completion_length", "parse_failure_rate", "zero_variance_share", "kl", "clip_share", "entropy")
    return figures | {f"{key}_last_tenth": mean(last, key) for key in shown}


if __name__ == "__main__":
    run_stage("grpo", main)
