"""Figures of a source from its scored answers, for every task: each with n and a 95 % interval.

Several completions of one item count as one observation, their mean; an interval that took them for independent would
be too narrow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from vlmr1.answers import Found
from vlmr1.evaluation.intervals import bootstrap_mean, bootstrap_share
from vlmr1.evaluation.set_precision import box_counts, set_precision
from vlmr1.measures import MEASURES
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS, ovd, rec

Rows = Sequence[Mapping[str, Any]]
Figures = dict[str, Any]
MOST_TRUTHS = 12  # different truths that are told apart one by one


def per_item(rows: Rows, measure: str) -> dict[int, list[float]]:
    """The scores of each item's completions, items in the order of their first."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["index"], []).append(float(row[measure]))
    return found


def summarise(rows: Rows, samples: Sequence[Sample]) -> Figures:
    """Figures of one source and one way of decoding.

    `rows` are predictions, as many of each item; `samples` hold the items asked. Raises ValueError without predictions,
    and for a source of several tasks.
    """
    by_id = {sample.id: sample for sample in samples}
    asked = [by_id[index] for index in dict.fromkeys(row["index"] for row in rows)]
    if not asked:
        raise ValueError("figures need at least one prediction")
    if len(names := sorted({sample.task for sample in asked})) > 1:
        raise ValueError(f"{asked[0].source}: rows of the tasks {', '.join(names)}; give each task a source of its own")
    judged = TASKS[names[0]].JUDGED
    figures: Figures = {"task": names[0], "judged": MEASURES[judged].figure, "n": len(asked)}
    for name, measure in MEASURES.items():
        if name in rows[0]:
            figures |= _figure(measure.figure, per_item(rows, name), measure.proportion)
    lost = {index: [1 - value for value in values] for index, values in per_item(rows, "parsed").items()}
    figures |= _figure("parse_failure_rate", lost, True)
    figures |= _figure("answer_tokens", per_item(rows, "tokens"), False)
    figures |= _best_of(rows, judged)
    figures |= _of_the_set(rows, asked)
    return figures | _parts(rows, asked, judged)


def _figure(key: str, values: Mapping[int, Sequence[float]], proportion: bool) -> Figures:
    """A figure and its interval: a proportion's over items, Wilson's where each is right or wrong; else the bootstrap's
    over items."""
    means = [sum(v) / len(v) for v in values.values()]
    low, high = bootstrap_share(means) if proportion else bootstrap_mean(means)
    return {key: sum(means) / len(means), f"{key}_low": low, f"{key}_high": high}


def _best_of(rows: Rows, judged: str) -> Figures:
    """With k completions an item, k > 1: what the best of them reaches; of a proportion that is pass@k."""
    values = per_item(rows, judged)
    most = max(map(len, values.values()))
    if most == 1:
        return {}
    best = {index: [max(v)] for index, v in values.items()}
    found = {"samples": most} | _figure("pass_at_k", best, MEASURES[judged].proportion)
    ks = [2**i for i in range(most.bit_length()) if 2**i < most] if MEASURES[judged].proportion else []
    for k in ks:
        chances = {index: [_chance(len(v), sum(value == 1 for value in v), k)] for index, v in values.items()}
        found |= _figure(f"pass_at_{k}", chances, True)
    return found


def _chance(n: int, right: int, k: int) -> float:
    """Of n completions of which so many are right, the chance that k drawn ones hold a right one.

    Formula: 1 − C(n − right, k) / C(n, k), the unbiased pass@k of arXiv 2107.03374, eq. 1.
    """
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def _of_the_set(rows: Rows, asked: Sequence[Sample]) -> Figures:
    """What only the whole set tells: of detections COCO's AP and counts, of words what one constant answer gets."""
    if asked[0].task == "ovd":
        by_id = {sample.id: sample for sample in asked}
        first = {row["index"]: row for row in reversed(rows)}  # of several completions the first
        said = [_boxes(row, by_id[index]) for index, row in first.items()]
        truths = [ovd.truth(by_id[index]) for index in first]
        return set_precision(said, truths) | box_counts(said, truths)
    if asked[0].task == "rec":
        return {}
    ((_, most),) = Counter(sample.solution for sample in asked).most_common(1)
    return {"majority": most / len(asked)}


def _boxes(row: Mapping[str, Any], sample: Sample) -> Sequence[Found]:
    height, width = row["input_size"]
    said = ovd.answer(row["completion"], sample, (width, height))
    return () if said.text is None else said.found


def _parts(rows: Rows, asked: Sequence[Sample], judged: str) -> Figures:
    """The judged figure by kind, by whether there is a target, by label, and at worst over the members of a group."""
    parts: Figures = {}
    if len({sample.kind for sample in asked}) > 1:
        parts["kinds"] = _split(rows, asked, judged, lambda sample: sample.kind)
    if asked[0].task in ("rec", "ovd"):
        none = {"rec": rec.NONE, "ovd": ovd.NONE}[asked[0].task]
        if len({sample.solution == none for sample in asked}) > 1:
            parts["targets"] = _split(rows, asked, judged, lambda s: "none" if s.solution == none else "some")
    elif asked[0].task == "gui" and len({sample.solution for sample in asked}) <= MOST_TRUTHS:
        parts["truths"] = _split(rows, asked, judged, lambda sample: sample.solution)
    members: dict[str, list[int]] = {}
    for sample in asked:
        if sample.group:
            members.setdefault(sample.group, []).append(sample.id)
    if any(len(ids) > 1 for ids in members.values()):
        values = per_item(rows, judged)
        worst = {i: [min(v for index in ids for v in values[index])] for i, ids in enumerate(members.values())}
        parts["groups"] = {"n": len(members)} | _figure("worst_case", worst, MEASURES[judged].proportion)
    return parts


def _split(rows: Rows, asked: Sequence[Sample], judged: str, key: Callable[[Sample], Hashable]) -> Figures:
    """The judged figure of the items of each key, by name."""
    values = per_item(rows, judged)
    found: dict[str, dict[int, list[float]]] = {}
    for sample in asked:
        found.setdefault(str(key(sample)), {})[sample.id] = values[sample.id]
    measure = MEASURES[judged]
    return {
        name: {"n": len(part)} | _figure(measure.figure, part, measure.proportion)
        for name, part in sorted(found.items())
    }
