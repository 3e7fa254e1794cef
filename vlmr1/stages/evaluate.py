"""evaluate: one policy on every evaluation source, greedy and, where params say so, sampled.

Run: `python -m vlmr1.stages.evaluate --policy grpo`. With `compute.launch` it starts itself again under torchrun; each
process answers its share, the first gathers.

Predictions go to predictions/POLICY/SOURCE-WAY.jsonl, their figures with intervals to figures.json and what was asked
how to settings.json beside them; the greedy figures, which DVC compares, to metrics/evaluate-POLICY.json. A run that
was killed asks nothing twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vlmr1.evaluation.running import evaluate, line
from vlmr1.files import rounded, write_json
from vlmr1.measures import MEASURES
from vlmr1.policies import LABELS
from vlmr1.settings import Params
from vlmr1.stages import CONVERTED, run_stage


def main(params: Params, policy: str) -> None:
    work = Path("work") / f"evaluate-{policy}"
    figures = evaluate(params, Path("models") / policy, CONVERTED, work, Path("predictions") / policy)
    if figures is None:
        return
    greedy = {name: by_way["greedy"] for name, by_way in figures.items()}
    write_json(Path("metrics") / f"evaluate-{policy}.json", rounded(_compared(greedy), 4))
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
    run_stage(f"evaluate-{wanted}", lambda params: main(params, wanted), lambda params: params.evaluate.own)
