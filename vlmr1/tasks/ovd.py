"""OVD, open-vocabulary detection: a list of names, every box of each, or `None` where there are none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache

from vlmr1.answers import Answer, Found, read
from vlmr1.answers.scanning import is_none, scan
from vlmr1.boxes import Size, rescale
from vlmr1.rewards import Reward
from vlmr1.rewards.detection import DETECTION, LENIENT, detection_reward
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.tasks import common

QUESTION = "Please carefully check the image and detect the following objects:"
FORM = (
    "Output each detected target's bbox coordinates in JSON format. The format of the bbox coordinates is: ```json"
    ' [{"bbox_2d": [x1, y1, x2, y2], "label": "target name"}] ```. If there are no such targets in the image, simply'
    " respond with None."
)
INSTRUCTION = common.THINK
THOUGHT = "I look for each of them."
METHODS = (*DETECTION, *LENIENT)
REWARDS = ("accuracy", *common.SHAPE, *METHODS)
JUDGED = "ap"
NONE = "None"


def question(row: Row) -> str:
    """The stored question: the names to look for, in the row's order, and the form of the answer."""
    if not row.asked:
        return row.text.strip()  # a list of another wording, as it stands
    # A name with a comma in it, as phrases have, would fall apart in a plain list, and a bracket looks like a JSON one.
    plain = not any("," in name or name.startswith("[") for name in row.asked)
    return f"{QUESTION} {', '.join(row.asked) if plain else json.dumps(row.asked, ensure_ascii=False)}. {FORM}"


def solution(row: Row) -> str:
    """The stored truth: a fenced JSON list of boxes with labels, or `None`."""
    return _fenced(map(Found, row.boxes, row.labels), 2) if row.boxes else NONE


def prompt(sample: Sample) -> str:
    """The text that stands after the picture: the instruction before the question, which learns sooner."""
    return f"{INSTRUCTION}\n{sample.problem}"


def truth(sample: Sample) -> tuple[Found, ...]:
    """The true boxes with their labels, in pixels of the stored picture; empty where there are none.

    Raises ValueError when the solution is neither a list of good boxes with labels nor `None`.
    """
    if is_none(sample.solution):
        return ()
    found, refused, unread, faults = _scanned(sample.solution)
    if refused or unread or not found or not all(one.label for one in found):
        wrong = "; ".join(faults) or ("a box without a label" if found else "no boxes in it")
        raise ValueError(
            f"{sample.source} id {sample.id}: solution {sample.solution[:80]!r} is no list of boxes with labels, nor"
            f" {NONE}: {wrong}"
        )
    return found


def target(sample: Sample, model_size: Size) -> str:
    """The completion supervised training teaches; boxes in whole pixels of the model's resized input."""
    true = truth(sample)
    if sample.sizes:
        true = tuple(Found(rescale(one.box, sample.sizes[0], model_size), one.label) for one in true)
    return f"<think>{THOUGHT}</think><answer>{_fenced(true, 0) if true else NONE}</answer>"


def answer(completion: str, sample: Sample, model_size: Size) -> Answer:
    """Read a completion and carry its boxes from the model's resized input to the stored picture."""
    said = read(completion)
    return said.carried(model_size, sample.sizes[0]) if sample.sizes else said


def rewards(said: Answer, sample: Sample, names: Iterable[str]) -> dict[str, Reward]:
    """The named rewards. Raises ValueError for a sample that asks for an accuracy reward this task has not."""
    return common.rewards(said, sample, names, METHODS, lambda m: detection_reward(m, said, truth(sample)))


def score(said: Answer, sample: Sample) -> dict[str, float | bool]:
    """What evaluation counts of one picture: AP@[.50:.95], AP at 0.50, and whether an answer could be read.

    Of the whole data set, COCO's figures are made from its boxes, not from these.
    """
    ap = detection_reward("od_ap", said, truth(sample))
    half = detection_reward("od_ap50", said, truth(sample))
    return {"ap": ap.value, "ap50": half.value, "parsed": said.text is not None and (said.none or bool(said.found))}


_scanned = lru_cache(maxsize=4096)(scan)  # a truth serves every completion of its group


def _fenced(boxes: Iterable[Found], digits: int) -> str:
    listed = [
        {"bbox_2d": [round(v, digits) if digits else round(v) for v in one.box], "label": one.label} for one in boxes
    ]
    return f"```json\n{json.dumps(listed, ensure_ascii=False, separators=(',', ':'))}\n```"
