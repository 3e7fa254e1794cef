"""grpo: reinforce the base on the training sources, to models/grpo. Run: `python -m vlmr1.stages.grpo`.

With `compute.launch` it starts itself again under torchrun, as many processes as that says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmr1.grpo.limits import check_length
from vlmr1.grpo.scoring import Scorer
from vlmr1.grpo.summary import summarise
from vlmr1.grpo.trainer import GrpoTrainer
from vlmr1.sample import load_sources
from vlmr1.settings import ELSEWHERE, Params
from vlmr1.stages import BASE, CONVERTED, places, run_stage
from vlmr1.training import save_training
from vlmr1.work import fingerprint_of, inputs_of, open_work, told


def main(params: Params) -> None:
    chosen = params.training()
    sources = load_sources(CONVERTED, "train")
    Scorer(chosen.grpo.rewards, [sample for source in sources for sample in source.samples])  # refuses in a moment

    def about() -> dict[str, Any]:
        of = chosen.model_dump(mode="json", exclude=ELSEWHERE) | {
            "compute": told(chosen.compute),
            "base": fingerprint_of(BASE),
        }
        return of | {"data": inputs_of(CONVERTED / "train", sources)}

    work = open_work(Path("work/grpo"), about)
    trainer = GrpoTrainer(BASE, sources, chosen, work)
    check_length(trainer.family, sources, chosen.grpo.max_completion_length)
    rows = trainer.run()
    save_training(trainer, rows, summarise(trainer, rows), *places("grpo"))


if __name__ == "__main__":
    run_stage("grpo", main, trains=True)
