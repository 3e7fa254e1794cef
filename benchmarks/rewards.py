"""How fast completions are scored: detection rewards against pycocotools, and every reward by itself.

    python -m benchmarks.rewards --json docs/benchmarks/rewards.json

The peer builds pycocotools' objects for each completion, with its prints silenced, as the original project does, on
the same boxes; values must agree. Seconds of CPU, the median of several rounds. Left out on purpose: `llm`, whose time
is its judge's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlmr1.answers import Found, read
from vlmr1.rewards.precision import average_precision
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS

LABELS = ("cat", "dog", "red car", "person on the left")
COMPLETIONS, BOXES, TRUE = 128, 20, 10


def boxes(rng: random.Random, count: int, like: Sequence[Found] = (), whole: bool = True) -> list[Found]:
    """Random boxes with labels, half of them near one of `like`, in whole pixels or not."""
    found = []
    for _ in range(count):
        if like and rng.random() < 0.5:
            near = rng.choice(like)
            box = [v + rng.choice((-4, -1, 0, 0, 1, 4)) for v in near.box]
            label = near.label if rng.random() < 0.9 else rng.choice(LABELS)
        else:
            x, y = rng.uniform(0, 400), rng.uniform(0, 400)
            box, label = [x, y, x + rng.uniform(10, 200), y + rng.uniform(10, 200)], rng.choice(LABELS)
        if whole:
            box = [round(v) for v in box]
        found.append(Found((box[0], box[1], max(box[2], box[0] + 2), max(box[3], box[1] + 2)), label))
    return found


def by_pycocotools(said: Sequence[Found], truth: Sequence[Found], charge_unknown: bool) -> float:
    """AP@[.50:.95] of one picture from pycocotools' own objects; all scores are 1."""
    names = sorted({one.label for one in truth} | ({one.label for one in said} if charge_unknown else set()))
    wanted = {one.label for one in truth}
    ids = {name: i for i, name in enumerate(names, 1)}
    kept = [one for one in said if one.label in wanted]
    if not kept:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": 1, "width": 2048, "height": 2048}],
            "categories": [{"id": ids[name], "name": name} for name in names],
            "annotations": [_annotation(i, one, ids) for i, one in enumerate(truth, 1)],
        }
        coco.createIndex()
        results = coco.loadRes([_annotation(i, one, ids) | {"score": 1.0} for i, one in enumerate(kept, 1)])
        judge = COCOeval(coco, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # COCO leaves categories without a true box out of its mean; charged, each takes part with 0.
    return float(judge.stats[0]) * len(wanted) / len(names)


def _annotation(number: int, one: Found, ids: dict[str, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box
    sides = [x1 - x0, y1 - y0]
    return {
        "id": number,
        "image_id": 1,
        "category_id": ids[one.label],
        "bbox": [x0, y0, *sides],
        "area": sides[0] * sides[1],
        "iscrowd": 0,
    }


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds of some rounds after one that warms up."""
    work()
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def measure_ap(rounds: int) -> dict[str, float]:
    """128 completions of 20 boxes over 10 true ones: seconds of ours and of pycocotools, and how far values differ."""
    rng = random.Random(0)
    cases = []
    for _ in range(COMPLETIONS):
        truth = boxes(rng, TRUE)
        cases.append((boxes(rng, BOXES, truth), truth))
    ours = seconds(lambda: [average_precision(said, truth, True) for said, truth in cases], rounds)
    theirs = seconds(lambda: [by_pycocotools(said, truth, True) for said, truth in cases], 3)
    gap = max(abs(average_precision(*case, True) - by_pycocotools(*case, True)) for case in cases)
    return {"ours": ours, "pycocotools": theirs, "ratio": theirs / ours, "largest_difference": gap}


def measure_rewards(rounds: int) -> dict[str, float]:
    """Microseconds a completion, reading excluded, of each reward of each task; and of reading itself."""
    rng = random.Random(1)
    truth = boxes(rng, TRUE)
    said = [{"bbox_2d": list(one.box), "label": one.label} for one in boxes(rng, BOXES, truth)]
    true = [{"bbox_2d": list(one.box), "label": one.label} for one in truth]
    think = "<think>I look at the picture from left to right and from top to bottom.</think>"
    cases = {
        "rec": (f'{think}<answer>{{"bbox_2d":[10,20,30,60]}}</answer>', "[12, 20, 30, 60]"),
        "ovd": (f"{think}<answer>```json\n{json.dumps(said)}\n```</answer>", f"```json\n{json.dumps(true)}\n```"),
        "math": (f"{think}<answer>The answer is 43 cm</answer>", "42 cm"),
        "gui": (f"{think}<answer>No Defect</answer>", "No Defect"),
    }
    found = {}
    for name, (completion, solution) in cases.items():
        task = TASKS[name]
        sample = Sample(0, (), "p", solution, name, task.METHODS[0], "s", "train", ())
        answer = task.answer(completion, sample, (0, 0))
        found[f"{name}: reading"] = 1e6 * seconds(lambda c=completion: [read(c) for _ in range(100)], rounds) / 100  # type: ignore[misc]
        for reward in task.REWARDS:
            if reward in ("accuracy", "llm"):
                continue
            work = lambda t=task, a=answer, s=sample, r=reward: [t.rewards(a, s, [r]) for _ in range(100)]  # noqa: E731
            found[f"{name}: {reward}"] = 1e6 * seconds(work, rounds) / 100
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    ap, rewards = measure_ap(chosen.rounds), measure_rewards(chosen.rounds)
    print(f"AP@[.50:.95] of {COMPLETIONS} completions with {BOXES} boxes, {TRUE} of them true, {len(LABELS)} labels")
    print("| ours | pycocotools, its objects built for each | ratio | largest difference |\n|---|---|---|---|")
    print(
        f"| {1e3 * ap['ours']:.1f} ms | {1e3 * ap['pycocotools']:.0f} ms | {ap['ratio']:.0f} x"
        f" | {ap['largest_difference']:.1e} |\n"
    )
    print("| task: reward | µs a completion |\n|---|---|")
    for name, value in rewards.items():
        print(f"| {name} | {value:.1f} |")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"ap": ap, "microseconds": rewards}, indent=2) + "\n")


if __name__ == "__main__":
    main()
