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

from vlmr1.evaluation.asking import ask, chunks_of, gathered
from vlmr1.evaluation.engines import InProcess
from vlmr1.evaluation.summary import summarise
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.launch import is_first, place, wait_for_all
from vlmr1.measures import EXTRAS, MEASURES, TITLES
from vlmr1.policies import LABELS
from vlmr1.progress import progress
from vlmr1.sample import load_sources, write_jsonl
from vlmr1.settings import Params
from vlmr1.stages import CONVERTED, run_stage
from vlmr1.work import fingerprint_of, inputs_of, open_work, told


def main(params: Params, policy: str) -> None:
    settings, asking, checkpoint = params.evaluate, params.evaluate.asking, Path("models") / policy
    sources = load_sources(CONVERTED, "evaluate")

    def about() -> dict[str, Any]:
        of: dict[str, Any] = {"evaluate": settings.model_dump(), "compute": told(params.compute)}
        of |= {"max_pixels": params.convert.max_pixels, "checkpoint": fingerprint_of(checkpoint)}
        return of | {"data": inputs_of(CONVERTED / "evaluate", sources)}

    work = open_work(Path("work") / f"evaluate-{policy}", about)
    wait_for_all()  # the first may have cleared what another run left
    engine = InProcess(checkpoint, params.compute, params.convert.max_pixels, asking.seed, asking.max_new_tokens)
    chunks = chunks_of(sources, asking, settings.batch)
    mine, of = place()
    share = sum(len(chunk.samples) for chunk in chunks if chunk.number % of == mine)
    if is_first():
        with progress(f"asking {policy}", share) as bar:
            ask(work, chunks, engine.ask, bar.update)
    else:
        ask(work, chunks, engine.ask, lambda items: None)
    wait_for_all()
    if not is_first():
        return
    figures: dict[str, dict[str, Any]] = {source.name: {} for source in sources}
    with whole_folder(Path("predictions") / policy) as folder:
        for source, way, rows in gathered(work, chunks, asking):
            write_jsonl(folder / f"{source.name}-{way}.jsonl", rows)
            figures[source.name][way] = rounded(summarise(rows, source.samples))
        write_json(folder / "figures.json", figures)
        write_json(
            folder / "settings.json",
            {"protocol": settings.protocol, **asking.model_dump(), "batch": settings.batch}
            | {"max_pixels": params.convert.max_pixels, "dtype": engine.device.dtype, **engine.about()},
        )
    greedy = {name: by_way["greedy"] for name, by_way in figures.items()}
    write_json(Path("metrics") / f"evaluate-{policy}.json", rounded(_compared(greedy), 4))
    shutil.rmtree(work)
    for name, f in greedy.items():
        print(f"{policy} on {name}: {_line(f)}, n {f['n']}")


def _compared(greedy: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What DVC compares: every measure, by source."""
    wanted = [*(measure.figure for measure in MEASURES.values()), "AP"]
    found = {key: {name: f[key] for name, f in greedy.items() if key in f} for key in wanted}
    return {key: values for key, values in found.items() if values}


def _line(f: dict[str, Any]) -> str:
    key = f["judged"]
    also = "".join(f", {label} {f[extra]:.3f}" for extra, label in EXTRAS[key].items() if extra in f)
    return f"{TITLES[key]} {f[key]:.3f} [{f[f'{key}_low']:.3f}, {f[f'{key}_high']:.3f}]{also}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=tuple(LABELS), required=True)
    wanted = parser.parse_args().policy
    run_stage(f"evaluate-{wanted}", lambda params: main(params, wanted), trains=True)
