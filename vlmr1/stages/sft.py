"""sft: the supervised baseline, from the base, on GRPO's prompts. Run: `python -m vlmr1.stages.sft --variant samples`.

`samples` sees the prompts that GRPO sees, as often; `compute` sees `sft.compute_ratio` times as many, which is
about what GRPO's rollouts cost. The report shows what each really cost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from vlmr1.families import load_family
from vlmr1.sample import load_sources
from vlmr1.settings import Params
from vlmr1.sft import SftTrainer
from vlmr1.stages import BASE, CONVERTED, run_stage
from vlmr1.training import save_training
from vlmr1.work import fingerprint_of, inputs_of, open_work


def main(params: Params, variant: str) -> None:
    name = f"sft-{variant}"
    rollouts = params.grpo.steps // params.grpo.num_iterations  # sets of prompts that GRPO sees
    steps = rollouts * (params.sft.compute_ratio if variant == "compute" else 1)
    batch = params.grpo.prompts_per_step
    sources = load_sources(CONVERTED, "train")
    about: dict[str, Any] = {"sft": params.sft.model_dump(mode="json"), "compute": params.compute.model_dump()}
    about |= {"steps": [steps, batch, params.grpo.seed], "max_pixels": params.convert.max_pixels}
    about |= {"base": fingerprint_of(BASE), "data": inputs_of(CONVERTED, sources)}
    work = open_work(Path("work") / name, about)
    family = load_family(BASE, params.convert.max_pixels)
    model = family.load_model(BASE, torch.float32)
    trainer = SftTrainer(
        model, family, sources, params.sft, params.compute, work, seed=params.grpo.seed, batch=batch, steps=steps
    )
    save_training(name, trainer, trainer.run(), Path("models") / name, {"prompts_seen": steps * batch})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("samples", "compute"), required=True)
    chosen = parser.parse_args().variant
    run_stage(f"sft-{chosen}", lambda params: main(params, chosen))
