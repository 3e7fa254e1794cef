"""evaluate: one policy on every evaluation source, greedy and sampled.

Run: `python -m vlmr1.stages.evaluate --policy grpo`.

Predictions go to predictions/POLICY/SOURCE-HOW.jsonl, their figures with intervals to figures.json beside them, the
greedy accuracies and IoUs, which DVC compares, to metrics/evaluate-POLICY.json. A source already
answered by an interrupted run of the same policy on the same data is not asked again.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmr1.evaluation.engines import InProcess
from vlmr1.evaluation.rec import summarise
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.policies import LABELS
from vlmr1.progress import progress
from vlmr1.sample import Sample, load_sources, read_jsonl, write_jsonl
from vlmr1.settings import Params
from vlmr1.stages import CONVERTED, run_stage
from vlmr1.work import fingerprint_of, inputs_of, open_work


def main(params: Params, policy: str) -> None:
    settings, checkpoint = params.evaluate, Path("models") / policy
    sources = load_sources(CONVERTED, "evaluate")

    def about() -> dict[str, Any]:
        of = {
            "evaluate": settings.model_dump(),
            "compute": params.compute.model_dump(),
            "max_pixels": params.convert.max_pixels,
        }
        return of | {"checkpoint": fingerprint_of(checkpoint), "data": inputs_of(CONVERTED / "evaluate", sources)}

    work = open_work(Path("work") / f"evaluate-{policy}", about)
    engine = InProcess(checkpoint, params.compute, settings, params.convert.max_pixels)
    chosen = {source.name: choose(source.samples, settings.limit, settings.seed) for source in sources}
    figures: dict[str, dict[str, Any]] = {source.name: {} for source in sources}
    with progress(f"asking {policy}", 2 * sum(map(len, chosen.values()))) as bar:
        for source in sources:
            for how, temperature in (("greedy", 0.0), ("sampled", settings.temperature)):
                path = work / f"{source.name}-{how}.jsonl"
                if path.is_file():
                    bar.update(len(chosen[source.name]))
                else:
                    write_jsonl(path, rounded(engine.ask(source, chosen[source.name], temperature, bar.update)))
                figures[source.name][how] = summarise(read_jsonl(path))
    with whole_folder(Path("predictions") / policy) as folder:
        for path in sorted(work.glob("*.jsonl")):
            shutil.copyfile(path, folder / path.name)
        write_json(folder / "figures.json", rounded(figures))
    shown = {key: {name: how["greedy"][key] for name, how in figures.items()} for key in ("acc_0.5", "mean_iou")}
    write_json(Path("metrics") / f"evaluate-{policy}.json", rounded(shown, 4))
    shutil.rmtree(work)
    for name, by_how in figures.items():
        f = by_how["greedy"]
        interval = f"[{f['acc_0.5_low']:.3f}, {f['acc_0.5_high']:.3f}]"
        print(f"{policy} on {name}: Acc@0.5 {f['acc_0.5']:.3f} {interval}, mean IoU {f['mean_iou']:.3f}, n {f['n']}")


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    """All samples, or the first `limit` of a seeded shuffle: the same for every policy."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return random.Random(seed).sample(list(samples), len(samples))[:limit]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=tuple(LABELS), required=True)
    wanted = parser.parse_args().policy
    run_stage(f"evaluate-{wanted}", lambda params: main(params, wanted))
