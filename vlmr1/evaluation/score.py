"""`vlmr1 score BENCHMARK`: the official figures of a benchmark from its own files and a model's predictions.

No model, no GPU. Files are read and checked here, the figures are the metric modules'. A result says its benchmark and
files, every proportion with n and a 95 % interval, what was missing, and, where another model's predictions are given,
whether the difference is noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmr1.answers import read
from vlmr1.boxes import Box, Size
from vlmr1.evaluation import d3 as d3_module
from vlmr1.evaluation.annotations import Truths, read_truths
from vlmr1.evaluation.asked import Asked
from vlmr1.evaluation.asking import choose
from vlmr1.evaluation.coco import coco, coco_filtered
from vlmr1.evaluation.compare import Result, compare
from vlmr1.evaluation.files import check_files
from vlmr1.evaluation.gui import gui
from vlmr1.evaluation.lvis import lvis
from vlmr1.evaluation.odinw import odinw
from vlmr1.evaluation.opencompass import SIX, opencompass_math
from vlmr1.evaluation.ovdeval import FILES, ovdeval, ovdeval_overall
from vlmr1.evaluation.predictions import Detection, outside, places_of, read_completions, read_detections
from vlmr1.evaluation.questions import answer_questions, load_questions
from vlmr1.evaluation.rec import rec
from vlmr1.files import check_target, write_json
from vlmr1.grpo.scoring import meant
from vlmr1.rewards.judge import Judge
from vlmr1.sample import Sample
from vlmr1.settings.results import PROTOCOLS
from vlmr1.settings.sources import Gui, RecJson, RecJsonl
from vlmr1.sources import gui as gui_source
from vlmr1.sources import rec_json, rec_jsonl, whole
from vlmr1.sources.lists import items
from vlmr1.tasks import rec as rec_task


@dataclass(frozen=True)
class Choices:
    """What only some benchmarks ask for."""

    scenario: str | None = None  # d3: intra or inter
    judge: Judge | None = None  # questions: who decides what no rule can tell; None leaves it wrong
    protocol: str | None = None  # rec: the items that a protocol asks; None for all


Scorer = Callable[[Path, Path, Choices], Result]


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
    if choices.protocol is None:
        return rec(truths, boxes, parsed)
    protocol = PROTOCOLS[choices.protocol]
    kept = sorted(choose(range(len(rows)), protocol.limit, protocol.seed))
    result = rec([truths[i] for i in kept], [boxes[i] for i in kept], [parsed[i] for i in kept])
    return replace(result, figures={"protocol": choices.protocol, "of": len(rows)} | result.figures)


def _boxes(metric: Callable[[Truths, list[Detection]], Result], federated: bool = False) -> Scorer:
    def scorer(annotations: Path, predictions: Path, _: Choices) -> Result:
        truths = read_truths(annotations, federated)
        said = read_detections(predictions, truths)
        return noted(metric(truths, said), [outside(truths, said)])

    return scorer


def _d3(annotations: Path, predictions: Path, choices: Choices) -> Result:
    if choices.scenario not in d3_module.SCENARIOS:
        raise ValueError(f"--scenario {choices.scenario}: intra or inter is needed")
    path, pickles = d3_module.files_of(annotations)
    truths = read_truths(path)
    absence, inner = d3_module.groups_of(pickles, truths)
    said = read_detections(predictions, truths)
    return noted(d3_module.d3(truths, said, absence, inner, choices.scenario), [outside(truths, said)])


def _ovdeval_overall(annotations: Path, predictions: Path, _: Choices) -> Result:
    parts, doubts = {}, []
    for seed, (name, (true, path)) in enumerate(_pairs(annotations, predictions, FILES).items()):
        truths = read_truths(true)
        said = read_detections(path, truths)
        parts[name] = ovdeval(truths, said, seed)
        doubts.append(outside(truths, said, f"{name}: "))
    return noted(ovdeval_overall(parts), doubts)


def _odinw(annotations: Path, predictions: Path, _: Choices) -> Result:
    parts, doubts = {}, []
    for name, (true, path) in _pairs(annotations, predictions, None).items():
        truths = read_truths(true)
        said = read_detections(path, truths)
        parts[name] = coco(truths, said)
        doubts.append(outside(truths, said, f"{name}: "))
    return noted(odinw(parts), doubts)


def noted(result: Result, doubts: Iterable[str | None]) -> Result:
    """The result with what is doubtful about its predictions, where anything is, as `notes`."""
    notes = [doubt for doubt in doubts if doubt is not None]
    return replace(result, figures=result.figures | {"notes": notes}) if notes else result


def _questions(name: str) -> Scorer:
    def scorer(annotations: Path, predictions: Path, choices: Choices) -> Result:
        benchmark = import_module(f"vlmr1.evaluation.{name}")
        questions = load_questions(name, annotations, benchmark.named)
        answered = answer_questions(questions, predictions, benchmark.verdict, choices.judge)
        result: Result = benchmark.result(answered, choices.judge)
        return result

    return scorer


def _opencompass_math(annotations: Path, predictions: Path, choices: Choices) -> Result:
    pairs = _pairs(annotations, predictions, SIX)
    return opencompass_math({name: _questions(name)(*pairs[name], choices) for name in SIX})


def _gui(annotations: Path, predictions: Path, _: Choices) -> Result:
    spec = Gui(format="gui", role="evaluate", annotations=annotations.name, images="")
    rows = list(whole(gui_source.read_rows(spec, annotations.parent)))
    names = [item.get("id", place) for place, (_, item) in enumerate(items(annotations))]
    places: dict[str, dict[str, int | None]] = {
        "id": places_of(names),
        "index": {str(row.row): place for place, row in enumerate(rows)},
    }
    asked = [Asked(row.text, row.images, row.answer) for row in rows]
    said = read_completions(predictions, places, asked)
    texts = [read(said[place].text).said if place in said else None for place in range(len(rows))]
    return gui([row.answer for row in rows], texts)


def _pairs(annotations: Path, predictions: Path, wanted: Iterable[str] | None) -> dict[str, tuple[Path, Path]]:
    """Annotations and predictions of each set by its name: NAME.json or NAME.jsonl, or the one such file below NAME/.

    Without `wanted`, every set that the annotations have. Raises ValueError for one that either folder lacks.
    """
    true, said = _sets(annotations), _sets(predictions)
    names = sorted(true) if wanted is None else list(wanted)
    for folder, sets in ((annotations, true), (predictions, said)):
        missing = [name for name in names if name not in sets]
        if missing:
            kind = "predictions" if folder == predictions else "annotations"
            raise ValueError(
                f"{folder}: no {kind} of set {missing[0]}, which are {missing[0]}.json, .jsonl, or the one such file"
                f" below {missing[0]}/"
            )
    unknown = sorted(set(said) - set(names))
    if unknown:
        raise ValueError(f"{predictions}: {unknown[0]} is none of the sets, which are {', '.join(names)}; remove it")
    return {name: (true[name], said[name]) for name in names}


def _sets(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        lists = [file for file in files if file.is_file() and file.suffix in (".json", ".jsonl")]
        name = path.stem if path.is_file() else path.name
        if len(lists) > 1 or (lists and name in found):
            raise ValueError(f"{path}: several lists of set {name}; leave one")
        if lists:
            found[name] = lists[0]
    if not found:
        raise ValueError(f"{folder}: no .json or .jsonl in it")
    return found


BENCHMARKS: dict[str, Scorer] = {
    "rec": _rec,
    "coco": _boxes(coco),
    "coco_filtered": _boxes(coco_filtered),
    "ovdeval": _boxes(ovdeval),
    "ovdeval_overall": _ovdeval_overall,
    "d3": _d3,
    "lvis": _boxes(lvis, federated=True),
    "odinw": _odinw,
    **{name: _questions(name) for name in SIX},
    "opencompass_math": _opencompass_math,
    "gui": _gui,
}
