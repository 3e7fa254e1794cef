"""`vlmr1 reward NAME`: score completions from a file and say why, before any GPU is heated.

A row has `completion` and `solution`; as needed `task`, `problem`, `accu_reward_method`, `size` (width, height of the
stored picture), `input_size` (height, width of the model's input, as in predictions; without it boxes are the picture's
own pixels), `labels` beside a solution that is a list of boxes, `tokens`, `image`. Left out on purpose: pictures are
not opened; a reward of yours gets their paths.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmr1.boxes import Size
from vlmr1.grpo.scoring import Scorer
from vlmr1.sample import Sample, read_jsonl, write_jsonl
from vlmr1.tasks import TASKS


def score_rows(name: str, rows: Path, output: Path) -> list[dict[str, Any]]:
    """Score every row with the reward `name`; `output` gets each row again with value, parsed, reason and problems.

    `name` is a task's reward or your package.module:function. Raises ValueError naming file, row, field and the mend.
    """
    if not rows.is_file():
        raise ValueError(f"{rows}: no such file")
    given = read_jsonl(rows)
    samples = [_sample(f"{rows}:{number}", row, name) for number, row in enumerate(given, 1)]
    scorer = Scorer({name: 1.0}, samples)
    scorer.foresee((row["completion"], sample) for row, sample in zip(given, samples, strict=True))
    scored = []
    for row, sample in zip(given, samples, strict=True):
        frame = _frame(row, sample)
        pictures = [Path(path) for path in sample.images]
        judged = scorer.judge(row["completion"], sample, frame, pictures, row.get("tokens"))
        problems = TASKS[sample.task].answer(row["completion"], sample, frame).problems
        scored.append(row | {"task": sample.task} | vars(judged.rewards[name]) | {"problems": list(problems)})
    write_jsonl(output, scored)
    return scored


def summary(name: str, scored: Sequence[dict[str, Any]]) -> str:
    """One line on all rows."""
    values = [row["value"] for row in scored]
    if not values:
        return f"{name}: no rows"
    lost = sum(not row["parsed"] for row in scored)
    return (
        f"{name}: {len(values)} rows, mean {sum(values) / len(values):.3f}, least {min(values):.3f}, most"
        f" {max(values):.3f}; {lost} could not be read"
    )


def _sample(where: str, row: dict[str, Any], name: str) -> Sample:
    """The row as a sample of its task, or of the task that the reward belongs to."""
    if not isinstance(row.get("completion"), str):
        raise ValueError(f"{where}: completion: the model's text is needed, it is {row.get('completion')!r}")
    if "solution" not in row:
        raise ValueError(f'{where}: solution: the true answer is needed; write "None" where there is nothing to find')
    task = row.get("task") or _task(name)
    if task not in TASKS:
        raise ValueError(f"{where}: task: {task!r} is not known; one of {', '.join(TASKS)}")
    known = TASKS[task]
    if ":" not in name and name not in known.REWARDS:
        raise ValueError(f"{where}: {name!r} is no reward of task {task}; it has {', '.join(known.REWARDS)}")
    method = name if name in known.METHODS else row.get("accu_reward_method") or known.METHODS[0]
    images = row.get("image") or []
    return Sample(
        id=row.get("id", row.get("index", int(where.rpartition(":")[2]) - 1)),
        images=(images,) if isinstance(images, str) else tuple(images),
        problem=str(row.get("problem", "")),
        solution=_solution(where, row),
        task=task,
        reward=method,
        source=where.rpartition(":")[0],
        split="",
        sizes=_size(where, row, "size"),
    )


def _task(name: str) -> str:
    """The first task that has the reward among its own methods, else the first that has it at all, else rec."""
    own = next((task for task, known in TASKS.items() if name in known.METHODS), None)
    return own or next((task for task, known in TASKS.items() if name in known.REWARDS), "rec")


def _solution(where: str, row: dict[str, Any]) -> str:
    solution, labels = row["solution"], row.get("labels")
    if solution is None:
        return "None"
    if labels is None or isinstance(solution, str):
        return solution if isinstance(solution, str) else json.dumps(solution, ensure_ascii=False)
    if not isinstance(solution, list) or not isinstance(labels, list) or len(solution) != len(labels):
        raise ValueError(f"{where}: labels: a list is needed, with one label for each box of solution")
    return json.dumps([{"bbox_2d": box, "label": label} for box, label in zip(solution, labels, strict=True)])


def _size(where: str, row: dict[str, Any], key: str) -> tuple[Size, ...]:
    """One size, two whole numbers above 0; none where the row has none. `size` may list one for each picture."""
    size = row.get(key)
    if size is None:
        return ()
    first = size[0] if isinstance(size, list) and size and isinstance(size[0], list) else size
    if not (isinstance(first, list) and len(first) == 2 and all(isinstance(v, int) and v > 0 for v in first)):
        raise ValueError(f"{where}: {key}: two whole numbers above 0 are needed, it is {size!r}")
    return ((first[0], first[1]),)


def _frame(row: dict[str, Any], sample: Sample) -> Size:
    """(width, height) of the picture as the model saw it."""
    seen = _size(f"{sample.source} id {sample.id}", row, "input_size")
    if seen:
        return seen[0][1], seen[0][0]
    return sample.sizes[0] if sample.sizes else (1, 1)
