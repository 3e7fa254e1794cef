"""`vlmr1 score BENCHMARK`: the official figures of a benchmark from its own files and a model's predictions.

No model, no GPU. Files are read and checked here, the figures are the metric modules'. A result says its benchmark and
files, every proportion with n and a 95 % interval, what was missing, and, where another model's predictions are given,
whether the difference is noise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmr1.answers import read
from vlmr1.boxes import Box, Size
from vlmr1.evaluation import of_boxes
from vlmr1.evaluation.asked import Asked
from vlmr1.evaluation.asking import choose
from vlmr1.evaluation.choices import Choices, Scorer
from vlmr1.evaluation.coco import coco, coco_filtered
from vlmr1.evaluation.compare import Result, compare
from vlmr1.evaluation.files import check_files, pairs
from vlmr1.evaluation.gui import gui
from vlmr1.evaluation.lvis import lvis
from vlmr1.evaluation.opencompass import SIX, opencompass_math
from vlmr1.evaluation.ovdeval import ovdeval
from vlmr1.evaluation.predictions import places_of, read_completions
from vlmr1.evaluation.questions import answer_questions, load_questions
from vlmr1.evaluation.rec import rec
from vlmr1.files import check_target, write_json
from vlmr1.grpo.scoring import meant
from vlmr1.sample import Sample
from vlmr1.settings.results import PROTOCOLS
from vlmr1.settings.sources import Gui, RecJson, RecJsonl
from vlmr1.sources import gui as gui_source
from vlmr1.sources import rec_json, rec_jsonl, whole
from vlmr1.sources.lists import items
from vlmr1.tasks import rec as rec_task


def score(
    benchmark: str, annotations: Path, predictions: Path, choices: Choices, output: Path, against: Path | None = None
) -> dict[str, Any]:
    """Score predictions, write the result to `output`, and return it; `against` are another model's predictions.

    Raises FileNotFoundError or ValueError, in one sentence naming file, row, field and mend.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(
            f"{benchmark}: no such benchmark{meant(benchmark, BENCHMARKS)}; one of {', '.join(BENCHMARKS)}"
        )
    if (benchmark == "d3") != (choices.scenario is not None):
        known = "d3 needs one, intra or inter" if benchmark == "d3" else f"{benchmark} has none; leave it out"
        raise ValueError(f"--scenario: {known}")
    if choices.protocol is not None and benchmark != "rec":
        raise ValueError(f"--protocol: belongs to rec, and {benchmark} is scored whole; leave it out")
    if choices.judge is not None and benchmark not in (*SIX, "opencompass_math"):
        raise ValueError(f"--judge: {benchmark} is scored by rule alone; leave it out")
    check_files(benchmark, annotations, {"--predictions": predictions, "--against": against})
    inputs = {"--annotations": annotations, "--predictions": predictions, "--against": against}
    check_target("--json", output, inputs)
    ours = BENCHMARKS[benchmark](annotations, predictions, choices)
    result: dict[str, Any] = {"benchmark": benchmark, "annotations": str(annotations), "predictions": str(predictions)}
    result |= {"main": ours.main} | ours.figures
    if against is not None:
        theirs = BENCHMARKS[benchmark](annotations, against, choices)
        told = {key: theirs.figures[key] for key in ("n", "missing", "notes") if key in theirs.figures}
        result["against"] = {"predictions": str(against)} | told | compare(ours, theirs)
    write_json(output, result)
    return result


def table(result: Mapping[str, Any]) -> str:
    """The figures of a result as lines: name, value, interval."""
    lines = []
    for name, value in result.items():
        if isinstance(value, bool | str) or not isinstance(value, int | float) or name.endswith(("_low", "_high")):
            continue
        low, high = result.get(f"{name}_low"), result.get(f"{name}_high")
        bounds = f"  [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
        lines.append(f"{name:28} {value if isinstance(value, int) else format(value, '.4f')}{bounds}")
    if "judge" in result:
        asked = result["judge"] if isinstance(result["judge"], str) else result["judge"]["model"]
        lines.append(f"{'judge':28} {asked}")
    lines += _loud(result)
    if "against" in result:
        lines.append(f"{result['against']['figure']} against {result['against']['predictions']}:")
        if "missing" in result["against"]:
            lines.append(f"  missing there: {result['against']['missing']}, here: {result['missing']}")
        lines += _loud(result["against"])
        lines.append(f"  {result['against']['says']}")
    return "\n".join(lines)


def _loud(result: Mapping[str, Any]) -> list[str]:
    """What nobody should overlook."""
    missing, n = result.get("missing", 0), result.get("n", 0)
    lines = [f"LOOK: {missing} of {n} have no prediction, and count as wrong"] if 2 * missing > n else []
    return lines + [f"LOOK: {note}" for note in result.get("notes", [])]


def _rec(annotations: Path, predictions: Path, choices: Choices) -> Result:
    common = {"role": "evaluate", "annotations": annotations.name, "images": ""}
    if annotations.suffix == ".jsonl":
        lines = RecJsonl(format="rec_jsonl", **common)  # type: ignore[arg-type]
        rows = list(whole(rec_jsonl.read_rows(lines, annotations.parent)))
    else:
        # Boxes in thousandths have the IoU they would have in pixels, so their frame need not be known.
        spec = RecJson(format="rec_json", frame="pixels", **common)  # type: ignore[arg-type]
        rows = list(whole(rec_json.read_rows(spec, annotations.parent)))
    numbers: dict[str, int | None] = {str(row.row): place for place, row in enumerate(rows)}
    asked = [
        Asked(
            rec_task.question(row), row.images, json.dumps(row.boxes[0]) if row.boxes else rec_task.NONE, row.sizes[0]
        )
        for row in rows
    ]
    said = read_completions(predictions, {"index": numbers}, asked)
    truths: list[Box | None] = []
    boxes: list[Box | None] = []
    parsed: list[bool | None] = []
    for place, row in enumerate(rows):
        solution = json.dumps(row.boxes[0]) if row.boxes else rec_task.NONE  # unrounded
        sample = Sample(
            row.row, row.images, rec_task.question(row), solution, "rec", "iou", str(annotations), "", row.sizes
        )
        truths.append(rec_task.truth(sample))
        one = said.get(place)
        size: Size = row.sizes[0] if row.sizes else (1, 1)
        answer = None if one is None else rec_task.answer(one.text, sample, one.input_size or size)
        boxes.append(None if answer is None else answer.box)
        parsed.append(None if answer is None else bool(rec_task.score(answer, sample)["parsed"]))
    kept, beside = list(range(len(rows))), dict[str, Any]()
    if choices.protocol is not None:
        protocol = PROTOCOLS[choices.protocol]
        kept = sorted(choose(kept, protocol.limit, protocol.seed))
        beside = {"protocol": choices.protocol, "of": len(rows)}
    elif choices.asked_only:
        kept, beside = sorted(said), {"of": len(rows)}
    result = rec([truths[i] for i in kept], [boxes[i] for i in kept], [parsed[i] for i in kept])
    return replace(result, figures=beside | result.figures)


def _questions(name: str) -> Scorer:
    def scorer(annotations: Path, predictions: Path, choices: Choices) -> Result:
        benchmark = import_module(f"vlmr1.evaluation.{name}")
        questions = load_questions(name, annotations, benchmark.named)
        answered = answer_questions(questions, predictions, benchmark.verdict, choices.judge)
        if choices.asked_only:
            answered = [one for one in answered if one.said is not None]
        result: Result = benchmark.result(answered, choices.judge)
        beside = {"of": len(questions)} if choices.asked_only else {}
        return replace(result, figures=beside | result.figures)

    return scorer


def _opencompass_math(annotations: Path, predictions: Path, choices: Choices) -> Result:
    sets = pairs(annotations, predictions, SIX)
    return opencompass_math({name: _questions(name)(*sets[name], choices) for name in SIX})


def _gui(annotations: Path, predictions: Path, choices: Choices) -> Result:
    spec = Gui(format="gui", role="evaluate", annotations=annotations.name, images="")
    rows = list(whole(gui_source.read_rows(spec, annotations.parent)))
    names = [item.get("id", place) for place, (_, item) in enumerate(items(annotations))]
    places: dict[str, dict[str, int | None]] = {
        "id": places_of(names),
        "index": {str(row.row): place for place, row in enumerate(rows)},
    }
    asked = [Asked(row.text, row.images, row.answer) for row in rows]
    said = read_completions(predictions, places, asked)
    kept = sorted(said) if choices.asked_only else range(len(rows))
    texts = [read(said[place].text).said if place in said else None for place in kept]
    result = gui([rows[place].answer for place in kept], texts)
    return replace(result, figures=({"of": len(rows)} if choices.asked_only else {}) | result.figures)


BENCHMARKS: dict[str, Scorer] = {
    "rec": _rec,
    "coco": of_boxes.boxes(coco),
    "coco_filtered": of_boxes.boxes(coco_filtered),
    "ovdeval": of_boxes.boxes(ovdeval),
    "ovdeval_overall": of_boxes.ovdeval_overall,
    "d3": of_boxes.d3,
    "lvis": of_boxes.boxes(lvis, federated=True),
    "odinw": of_boxes.odinw,
    **{name: _questions(name) for name in SIX},
    "opencompass_math": _opencompass_math,
    "gui": _gui,
}
