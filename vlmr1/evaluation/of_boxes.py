"""The scorers of boxes: files read, and given to the benchmark's metric.

Predictions are a COCO results list, or, in a file that ends in .jsonl, what a language model said, as the evaluate
stage leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vlmr1.evaluation import d3 as d3_module
from vlmr1.evaluation.annotations import Truths, read_truths
from vlmr1.evaluation.choices import Choices, Scorer
from vlmr1.evaluation.coco import coco
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.files import first_of, pairs
from vlmr1.evaluation.odinw import odinw as mean_of_sets
from vlmr1.evaluation.ovdeval import FILES, ovdeval
from vlmr1.evaluation.ovdeval import ovdeval_overall as mean_of_aspects
from vlmr1.evaluation.predictions import FORM, Detection, outside, read_detections
from vlmr1.evaluation.said import only, read_said


class Read(NamedTuple):
    """What a metric is given, and what stands beside its figures."""

    truths: Truths
    detections: list[Detection]
    beside: dict[str, Any]


def boxes(metric: Callable[[Truths, Sequence[Detection]], Result], federated: bool = False) -> Scorer:
    """The scorer of a set by a metric; `federated` reads it as LVIS."""

    def scorer(annotations: Path, predictions: Path, choices: Choices) -> Result:
        read = _read(annotations, predictions, choices, federated)
        return _with(metric(read.truths, read.detections), read.beside)

    return scorer


def d3(annotations: Path, predictions: Path, choices: Choices) -> Result:
    """D³, by the scenario chosen."""
    if choices.scenario not in d3_module.SCENARIOS:
        raise ValueError(f"--scenario {choices.scenario}: intra or inter is needed")
    path, pickles = d3_module.files_of(annotations)
    read = _read(path, predictions, choices)
    absence, inner = d3_module.groups_of(pickles, read.truths)
    result = d3_module.d3(read.truths, read.detections, absence, inner, choices.scenario)
    return _with(result, read.beside)


def ovdeval_overall(annotations: Path, predictions: Path, choices: Choices) -> Result:
    """OVDEval's eight sets and the mean of its five aspects."""
    found = {name: _read(*pair, choices) for name, pair in pairs(annotations, predictions, FILES).items()}
    parts = {name: ovdeval(one.truths, one.detections, seed) for seed, (name, one) in enumerate(found.items())}
    return _with(mean_of_aspects(parts), _together(found))


def odinw(annotations: Path, predictions: Path, choices: Choices) -> Result:
    """Every set of the folder, and their mean."""
    found = {name: _read(*pair, choices) for name, pair in pairs(annotations, predictions, None).items()}
    return _with(
        mean_of_sets({name: coco(one.truths, one.detections) for name, one in found.items()}), _together(found)
    )


def _read(annotations: Path, predictions: Path, choices: Choices, federated: bool = False) -> Read:
    truths = read_truths(annotations, federated)
    if predictions.suffix != ".jsonl":
        detections = read_detections(predictions, truths)
        return Read(truths, detections, _doubts(truths, detections))
    if "bbox" in first_of(predictions):
        raise ValueError(f"{predictions}: {FORM}, in a file that ends in .json")
    detections, asked, unknown = read_said(predictions, truths)
    beside = {"missing": len(truths.images) - len(asked), "boxes_of_no_category": unknown}
    if choices.asked_only:
        beside = {"of": len(truths.images), "missing": 0, "boxes_of_no_category": unknown}
        truths = only(truths, asked)
    return Read(truths, detections, beside | _doubts(truths, detections))


def _doubts(truths: Truths, detections: Sequence[Detection]) -> dict[str, Any]:
    doubt = outside(truths, detections)
    return {} if doubt is None else {"notes": [doubt]}


def _together(found: Mapping[str, Read]) -> dict[str, Any]:
    """What stands beside the mean of several sets: their notes under their names."""
    notes = [f"{name}: {note}" for name, one in found.items() for note in one.beside.get("notes", [])]
    return {"notes": notes} if notes else {}


def _with(result: Result, beside: Mapping[str, Any]) -> Result:
    return replace(result, figures={**result.figures, **beside})
