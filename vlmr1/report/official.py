"""Benchmarks' own figures of the run's greedy answers: what `vlmr1 score` says of every source that is such a list.

A source is scored against its own annotations, by the benchmark of its format, on the items that were asked: rows that
validation refused, and those beyond `evaluate.limit`, are not held against a model, and `of` tells how many there are.
Left out on purpose: judges; sources in forms that no benchmark is scored in (refcoco, lisa, voc, table, jsonl).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmr1.evaluation.choices import Choices
from vlmr1.evaluation.opencompass import SIX
from vlmr1.evaluation.score import BENCHMARKS
from vlmr1.settings import SourceSpec
from vlmr1.settings.data import Data


def benchmark_of(spec: SourceSpec, root: Path) -> tuple[str, Choices] | None:
    """The benchmark a source is scored as, and how; None where there is none."""
    choices = Choices(asked_only=True)
    match spec.format:
        case "rec_jsonl":
            return "rec", choices
        case "rec_json":
            return ("rec", choices) if spec.frame == "pixels" else None
        case "coco":
            return ("coco_filtered" if spec.keep == "filtered" else "coco"), choices
        case "d3":
            whole = spec.sentences == "full" and spec.asked in ("intra", "inter") and (root / spec.annotations).is_dir()
            return ("d3", Choices(scenario=spec.asked, asked_only=True)) if whole else None
        case "lvis" | "ovdeval" | "gui":
            return spec.format, choices
        case name if name in SIX:
            return (name, choices) if getattr(spec, "only", None) is None else None
    return None


def official(data: Data, predictions: Path) -> dict[str, dict[str, Any]]:
    """By source: its benchmark, the name of its main figure, and its figures, from a policy's folder of predictions.

    What a benchmark cannot be scored on, as We-Math on a part of its steps, is told in `unscored`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, spec in data.sources.items():
        known = benchmark_of(spec, Path(data.root)) if spec.role == "evaluate" else None
        if known is None:
            continue
        benchmark, choices = known
        about: dict[str, Any] = {"benchmark": benchmark}
        try:
            result = BENCHMARKS[benchmark](
                Path(data.root) / spec.annotations, predictions / f"{name}-greedy.jsonl", choices
            )
        except ValueError as error:
            found[name] = about | {"unscored": str(error)}
        else:
            found[name] = about | {"main": result.main, **result.figures}
    return found
