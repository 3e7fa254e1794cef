"""evaluate: one policy on every evaluation source, greedy and, where params say so, sampled.

Run: `python -m vlmr1.stages.evaluate --policy grpo`. With `compute.launch` it starts itself again under torchrun; each
process answers its share, the first gathers.

Predictions go to predictions/POLICY/SOURCE-WAY.jsonl, their figures with intervals to figures.json and what was asked
how to settings.json beside them; the greedy figures, which DVC compares, to metrics/evaluate-POLICY.json. A run that
was killed asks nothing twice.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from vlmr1.evaluation.running import ask_all, leave_results, line
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.launch import is_first
from vlmr1.measures import MEASURES
from vlmr1.policies import LABELS
from vlmr1.sample import load_sources
from vlmr1.settings import Params
from vlmr1.stages import CONVERTED, run_stage
from vlmr1.work import fingerprint_of, inputs_of, open_work, told


def main(params: Params, policy: str) -> None:
    settings, checkpoint = params.evaluate, Path("models") / policy
    sources = load_sources(CONVERTED, "evaluate")

    def about() -> dict[str, Any]:
        of: dict[str, Any] = {"evaluate": settings.model_dump(exclude={"servers"}), "compute": told(params.compute)}
        of |= {"max_pixels": params.convert.max_pixels, "checkpoint": fingerprint_of(checkpoint)}
        return of | {"data": inputs_of(CONVERTED / "evaluate", sources)}

    work = open_work(Path("work") / f"evaluate-{policy}", about)
    chunks, model = ask_all(checkpoint, sources, settings, params.compute, params.convert.max_pixels, work)
    if not is_first():
        return
    with whole_folder(Path("predictions") / policy) as folder:
        figures = leave_results(folder, sources, settings, work, chunks, model)
    greedy = {name: by_way["greedy"] for name, by_way in figures.items()}
    write_json(Path("metrics") / f"evaluate-{policy}.json", rounded(_compared(greedy), 4))
    shutil.rmtree(work)
    for name, f in greedy.items():
        print(f"{policy} on {name}: {line(f)}")


def _compared(greedy: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What DVC compares: every measure, by source."""
    wanted = [*(measure.figure for measure in MEASURES.values()), "AP"]
    found = {key: {name: f[key] for name, f in greedy.items() if key in f} for key in wanted}
    return {key: values for key, values in found.items() if values}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=tuple(LABELS), required=True)
    wanted = parser.parse_args().policy
    run_stage(
        f"evaluate-{wanted}",
        lambda params: main(params, wanted),
        trains=lambda params: params.evaluate.engine == "in-process",
    )
