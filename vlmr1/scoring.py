"""`vlmr1 reward NAME`: score completions from a file and say why, before any GPU is heated.

A row has `completion` and `solution`, or as evaluation writes it `truth`, either with or without answer tags; as needed
`task`, `problem`, `accu_reward_method`, `size` (width, height of the stored picture), `input_size` (height, width of
the model's input, as in predictions; without it boxes are the picture's own pixels), `labels` beside a solution that is
a list of boxes, `tokens`, `image`. Where a row names no task, the reward and the solution tell it. Left out on purpose:
pictures are not opened; a reward of yours gets their paths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmr1.boxes import Size
from vlmr1.files import check_target
from vlmr1.grpo.scoring import Scorer, meant
from vlmr1.sample import Sample, numbered_jsonl, unfenced, untagged, write_jsonl
from vlmr1.sources.reading import no_misspelt, shown, there
from vlmr1.tasks import TASKS
from vlmr1.tasks.gui import DEFECTS

OPTIONAL = ("task", "problem", "accu_reward_method", "size", "input_size", "labels", "tokens", "image")
# What predictions and scored rows have besides.
PASSED = ("id", "index", "problems", "box", "boxes", "label", "source", "split", "kind", "group", "prompt", "sample")
BOXED = ("rec", "ovd")


def score_rows(name: str, rows: Path, output: Path) -> list[dict[str, Any]]:
    """Score every row with the reward `name`; `output` gets each row again with value, parsed, reason and problems.

    `name` is a task's reward or your package.module:function. Raises ValueError naming file, line, field and the mend.
    """
    known = tuple(dict.fromkeys(reward for task in TASKS.values() for reward in task.REWARDS))
    if ":" not in name and name not in known:
        raise ValueError(
            f"{name}: no such reward{meant(name, known)}; there are {', '.join(known)}, or yours as"
            " package.module:function"
        )
    there(rows)
    check_target("--output", output, {"--input": rows})
    given, samples = [], []
    for line, row in numbered_jsonl(rows):
        given.append(row)
        samples.append(_sample(f"{rows}:{line}", row, name))
    if not given:
        raise ValueError(f"{rows}: no rows in it")
    scorer = Scorer({name: 1.0}, samples, "NAME")
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
    lost = sum(not row["parsed"] for row in scored)
    return (
        f"{name}: {len(values)} rows, mean {sum(values) / len(values):.3f}, least {min(values):.3f}, most"
        f" {max(values):.3f}; {lost} could not be read"
    )


def _sample(where: str, row: dict[str, Any], name: str) -> Sample:
    """The row as a sample of its task, or of the task that reward and solution tell; `where` is its FILE:LINE."""
    try:
        _check_fields(row)
        solution = row["solution"] if "solution" in row else row["truth"]
        solution = untagged(solution) if isinstance(solution, str) else solution
        task = row.get("task") or _task(name, row.get("accu_reward_method"), solution, row.get("labels"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    read_as = "" if row.get("task") else f'; read as task {task}, add "task" if it is another ({", ".join(TASKS)})'
    try:
        return _of_task(where, row, name, task, solution)
    except ValueError as error:
        raise ValueError(f"{where}: {error}{read_as}") from error


def _check_fields(row: dict[str, Any]) -> None:
    """Raises ValueError for a field that is missing, misspelt, or not of its kind."""
    for key in ("value", "reason"):
        if key in row:
            raise ValueError(f"{key}: the score's own field would overwrite it; rename or remove it")
    for key, value in row.items():
        if not json.dumps([key, value], ensure_ascii=False).isascii():
            _whole(key, value)
    no_misspelt(row, OPTIONAL, ("completion", "solution", *PASSED))
    nothing = '; write "None" where there is nothing to find'
    for names, mend in ((("completion",), ""), (("solution", "truth"), nothing)):
        if not any(name in row for name in names):
            raise ValueError(f"no {' or '.join(names)}; the row has {', '.join(map(shown, row))}{mend}")
    if not isinstance(row["completion"], str):
        raise ValueError(f"completion: the model's text is needed, it is {shown(row['completion'])}")
    for key in ("task", "accu_reward_method", "problem"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise ValueError(f"{key}: text is needed, it is {shown(row[key])}")
    if row.get("task") and row["task"] not in TASKS:
        raise ValueError(f"task: {row['task']!r} is not known; one of {', '.join(TASKS)}")
    tokens = row.get("tokens")
    if tokens is not None and not (type(tokens) is int and tokens >= 0):
        raise ValueError(f"tokens: a whole number from 0 on is needed, it is {shown(tokens)}")
    images = row.get("image") or []
    if not isinstance(images, str) and not (isinstance(images, list) and all(isinstance(one, str) for one in images)):
        raise ValueError(f"image: a file's name or a list of names is needed, it is {shown(images)}")


def _whole(key: str, value: Any) -> None:
    """Raises ValueError for half a character, which JSON can spell and no file hold."""
    try:
        json.dumps([key, value], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(key)}: holds half a character (a lone surrogate); mend or remove it") from error


def _of_task(where: str, row: dict[str, Any], name: str, task: str, solution: Any) -> Sample:
    """The sample, its truth looked at. Raises ValueError without a place."""
    known = TASKS[task]
    if ":" not in name and name not in known.REWARDS:
        raise ValueError(f"{name!r} is no reward of task {task}; it has {', '.join(known.REWARDS)}")
    own = row.get("accu_reward_method")
    if own and own not in known.METHODS and name not in known.METHODS:
        raise ValueError(f"accu_reward_method: {own!r} is not known for task {task}; one of {', '.join(known.METHODS)}")
    if task not in BOXED and row.get("labels") is not None:
        raise ValueError(f"labels: belong to a solution of boxes, and task {task} has none; remove them")
    images = row.get("image") or []
    sample = Sample(
        id=row.get("id", row.get("index", int(where.rpartition(":")[2]))),
        images=(images,) if isinstance(images, str) else tuple(images),
        problem=row.get("problem") or "",
        solution=_boxes(solution, row.get("labels")) if task in BOXED else _words(solution),
        task=task,
        reward=name if name in known.METHODS else own or known.METHODS[0],
        source=where,
        split="",
        sizes=_size(row, "size"),
    )
    if _size(row, "input_size") and not sample.sizes and task in BOXED:
        raise ValueError("input_size needs size, [width, height] of the stored picture, to which boxes are carried")
    try:
        known.truth(sample)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"{where} id {sample.id}: ")) from error
    return sample


def _task(name: str, method: str | None, solution: Any, labels: Any) -> str:
    """The task that knows the reward; where several do, the one that the row's own method or its solution is of."""
    for reward in (name, method):
        having = [task for task, known in TASKS.items() if reward in known.METHODS]
        if having:
            return "gui" if "gui" in having and solution in DEFECTS else having[0]
    value = solution
    if isinstance(solution, str):
        try:
            value = json.loads(unfenced(solution))
        except (ValueError, RecursionError):
            return "rec" if solution.strip() == "None" else "gui" if solution in DEFECTS else "math"
    if value is None or (isinstance(value, list) and len(value) == 4 and not any(map(_nested, value))):
        return "rec"
    return "ovd" if labels is not None or (isinstance(value, list) and any(map(_nested, value))) else "math"


def _nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _words(solution: Any) -> str:
    """A truth in words as text. Raises ValueError for what no answer in words can be held against."""
    if isinstance(solution, str):
        return solution
    flat = solution if isinstance(solution, list) else [solution]
    if not flat or not all(type(v) in (str, int) or (type(v) is float and math.isfinite(v)) for v in flat):
        raise ValueError(f"solution: text or a number is needed, it is {json.dumps(solution)[:80]}")
    return json.dumps(solution, ensure_ascii=False)


def _boxes(solution: Any, labels: Any) -> str:
    """A truth of boxes as text, without its fence; "None" for null and an empty list."""
    if isinstance(solution, str):
        plain = unfenced(solution)
        return "None" if plain.strip() in ("null", "[]") else plain
    if solution in (None, []) and not labels:
        return "None"
    if labels is None:
        return json.dumps(solution, ensure_ascii=False)
    if not isinstance(solution, list) or not isinstance(labels, list) or len(solution) != len(labels):
        raise ValueError("labels: a list is needed, with one label for each box of solution")
    return json.dumps([{"bbox_2d": box, "label": label} for box, label in zip(solution, labels, strict=True)])


def _size(row: dict[str, Any], key: str) -> tuple[Size, ...]:
    """One size, two whole numbers above 0; none where the row has none. `size` may list one for each picture."""
    size = row.get(key)
    if size is None or size == []:
        return ()
    first = size[0] if isinstance(size, list) and isinstance(size[0], list) else size
    if not (isinstance(first, list) and len(first) == 2 and all(type(v) is int and v > 0 for v in first)):
        raise ValueError(f"{key}: two whole numbers above 0 are needed, it is {shown(size)}")
    return ((first[0], first[1]),)


def _frame(row: dict[str, Any], sample: Sample) -> Size:
    """(width, height) of the picture as the model saw it."""
    seen = _size(row, "input_size")
    if seen:
        return seen[0][1], seen[0][0]
    return sample.sizes[0] if sample.sizes else (1, 1)
