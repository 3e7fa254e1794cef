"""sft: the supervised baseline, from the base, on GRPO's prompts. Run: `python -m vlmr1.stages.sft --variant samples`.

`samples` sees the prompts that GRPO sees, as often; `compute` sees `sft.compute_ratio` times as many, which is
about what GRPO's rollouts cost. The report shows what each really cost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vlmr1.sample import load_sources
from vlmr1.settings import Params
from vlmr1.sft import SftTrainer
from vlmr1.stages import BASE, CONVERTED, places, run_stage
from vlmr1.training import save_training
from vlmr1.work import fingerprint_of, inputs_of, open_work, told


def main(params: Params, variant: str) -> None:
    name = f"sft-{variant}"
    rollouts = params.grpo.steps // params.grpo.num_iterations  # sets of prompts that GRPO sees
    steps = rollouts * (params.sft.compute_ratio if variant == "compute" else 1)
    batch = params.grpo.prompts_per_step
    sources = load_sources(CONVERTED, "train")

    def about() -> dict[str, Any]:
        of: dict[str, Any] = {"steps": [steps, batch, params.grpo.seed], "sft": params.sft.model_dump(mode="json")}
        of |= {"trained": params.trained.model_dump(mode="json"), "compute": told(params.compute)}
        of |= {"max_pixels": params.convert.max_pixels, "base": fingerprint_of(BASE)}
        return of | {"data": inputs_of(CONVERTED / "train", sources)}

    work = open_work(Path("work") / name, about)
    trainer = SftTrainer(
        BASE,
        sources,
        params.sft,
        params.trained,
        params.compute,
        work,
        max_pixels=params.convert.max_pixels,
        seed=params.grpo.seed,
        batch=batch,
        steps=steps,
        longest=params.grpo.max_prompt_length,
        keep_out=0 if params.grpo.holdout is None else params.grpo.holdout.items,
    )
    save_training(trainer, trainer.run(), {"prompts_seen": steps * batch}, *places(name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("samples", "compute"), required=True)
    chosen = parser.parse_args().variant
    run_stage(f"sft-{chosen}", lambda params: main(params, chosen), trains=True)
