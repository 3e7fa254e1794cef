"""Whether the rewards that params.yaml asks for can be had: said by doctor and by the first stages, not after hours.

Names are held against the tasks of the training lists, functions of the user's are imported, and where a language
model judges, the environment must name it. Left out on purpose: rows that name a reward or a task of their own, which
only a reader of the rows can know.
"""

from __future__ import annotations

from vlmr1.grpo.scoring import KEY, meant, named
from vlmr1.rewards.judge import judge_of_environment
from vlmr1.settings import Params, SourceSpec
from vlmr1.tasks import TASKS

REC, OVD = ("refcoco", "rec_jsonl", "rec_json", "lisa"), ("coco", "lvis", "ovdeval", "d3", "voc")


def check_rewards(params: Params) -> None:
    """Raises ValueError naming the key, what is known in its place, and the mend."""
    weights = params.grpo.rewards
    specs = {name: spec for name, spec in params.data.sources.items() if spec.role == "train"}
    tasks = {task for spec in specs.values() if (task := task_of(spec)) is not None}
    named(weights, tasks)
    known = {name for task in TASKS.values() for name in task.REWARDS}
    for name in weights:
        if ":" not in name and name not in known:
            raise ValueError(f"{KEY}: {name!r} is no reward{meant(name, known)}; there are {', '.join(sorted(known))}")
    for source, spec in params.data.sources.items():
        _check_method(source, spec)
    if "llm" in weights or any(getattr(spec, "reward", None) == "llm" for spec in params.data.sources.values()):
        judge_of_environment()


def task_of(spec: SourceSpec) -> str | None:
    """The task of a source's rows; None where the rows name their own."""
    if spec.format in ("jsonl", "table"):
        return getattr(spec, "task", None)
    if spec.format == "gui":
        return "gui"
    return "rec" if spec.format in REC else "ovd" if spec.format in OVD else "math"


def _check_method(source: str, spec: SourceSpec) -> None:
    """Raises ValueError for an accuracy reward of a source that its task has not."""
    task, reward = task_of(spec), getattr(spec, "reward", None)
    if task is None or reward in (None, "auto"):
        return
    known = TASKS[task].METHODS
    if reward not in known:
        raise ValueError(
            f"data.sources.{source}.reward: {reward!r} is no accuracy reward of task {task}{meant(reward, known)}; one"
            f" of {', '.join(known)}"
        )
