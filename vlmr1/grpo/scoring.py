"""Rewards of completions: the task's own and the user's, weighted, each with its reason.

The name `accuracy` means the accuracy reward that the row asks for (`accu_reward_method`), any other name itself.

A user's reward is a function named `package.module:function`, called with keywords as
`function(completion=…, sample=…, answer=…, pictures=…)`: the text, the `vlmr1.sample.Sample`, the read
`vlmr1.answers.Answer`, and the paths of the sample's pictures. It returns a number or a `vlmr1.rewards.Reward`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmr1.answers import Answer, read
from vlmr1.boxes import Size
from vlmr1.rewards import Reward
from vlmr1.rewards.judge import foresee, judge_of_environment
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS

KEY = "grpo.rewards"


@dataclass(frozen=True)
class Judged:
    """One completion, scored."""

    answer: Answer
    total: float  # the weighted sum
    rewards: dict[str, Reward]
    parsed: bool
    boxes: int
    repeated: int  # boxes said more than once
    metric: float  # what the task is judged by
    frame: Size  # (width, height) of the picture as the model saw it


class Scorer:
    """The rewards of a run, by name, with their weights."""

    def __init__(self, weights: Mapping[str, float], samples: Sequence[Sample], key: str = KEY) -> None:
        """`key` is where the names stand. Raises ValueError, naming it and the mend, for a reward that is not there or
        a row it cannot score."""
        self.weights, self.key = dict(weights), key
        self.own = named(weights, {sample.task for sample in samples}, key)
        for sample in samples:
            its = TASKS[sample.task]
            its.truth(sample)  # an answer that cannot be read is refused before any training
            if sample.reward not in its.METHODS:
                raise ValueError(
                    f"{sample.source} id {sample.id}: accu_reward_method: {sample.reward!r} is not known for task"
                    f" {sample.task}; one of {', '.join(its.METHODS)}"
                )
        asks = "llm" in weights or any(sample.reward == "llm" for sample in samples)
        self.llm = judge_of_environment() if asks else None

    def foresee(self, said: Iterable[tuple[str, Sample]]) -> None:
        """Put completions to the language model that judges, all at once, where one does; then `judge` need not wait.

        Raises ConnectionError when it cannot be reached.
        """
        if self.llm is not None:
            wanted = [(text, one) for text, one in said if one.reward == "llm" or "llm" in self.weights]
            foresee([(read(text), one.solution.strip(), one.problem) for text, one in wanted], self.llm)

    def judge(
        self, text: str, sample: Sample, frame: Size, pictures: Sequence[Path], tokens: int | None = None
    ) -> Judged:
        """Score one completion of so many tokens. `frame` is the size of the picture as the model saw it."""
        task = TASKS[sample.task]
        answer = replace(task.answer(text, sample, frame), tokens=tokens)
        rewards = task.rewards(answer, sample, [name for name in self.weights if name not in self.own])
        for name, function in self.own.items():
            try:
                given = function(completion=text, sample=sample, answer=answer, pictures=list(pictures))
            except Exception as error:
                raise RuntimeError(f"{self.key}: {name} failed on {sample.source} id {sample.id}: {error!r}") from error
            rewards[name] = _checked(self.key, name, given, sample)
        total = sum(weight * rewards[name].value for name, weight in self.weights.items())
        score = task.score(answer, sample)
        repeated = len(answer.boxes) - len(set(answer.boxes))
        return Judged(
            answer,
            total,
            {name: rewards[name] for name in self.weights},
            bool(score["parsed"]),
            len(answer.boxes),
            repeated,
            float(score[task.JUDGED]),
            frame,
        )


def named(names: Iterable[str], tasks: Collection[str], key: str = KEY) -> dict[str, Callable[..., Any]]:
    """The user's own functions among the names of rewards.

    Raises ValueError, naming `key`, for a function that cannot be had, and for a name that one of the tasks has not.
    """
    own = {name: _import(key, name) for name in names if ":" in name}
    anywhere = {reward for task in TASKS.values() for reward in task.REWARDS}
    for task in sorted(tasks):
        known = TASKS[task].REWARDS
        for name in names:
            if name not in own and name not in known:
                near = "" if name in anywhere else meant(name, known)
                raise ValueError(
                    f"{key}: {name!r} is no reward of task {task}{near}; it has {', '.join(known)};"
                    " a function of yours is written package.module:function"
                )
    return own


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one is nearest to, as a question; nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.65)
    return f" (did you mean {near[0]}?)" if near else ""


def _import(key: str, name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module beside params.yaml, as `python -m` finds it
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}: {name} cannot be imported ({error}); name package.module:function") from error
    try:
        inspect.signature(found).bind(completion="", sample=None, answer=None, pictures=[])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{key}: {name} cannot be called ({error}); write def {function}(completion, sample, answer, pictures)"
        ) from error
    return found


def _checked(key: str, name: str, given: Any, sample: Sample) -> Reward:
    """What a user's reward gave, as a `Reward` of a finite value."""
    try:
        reward = given if isinstance(given, Reward) else Reward(float(given), True, "")
        good = math.isfinite(reward.value)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f"{key}: {name} gave {given!r} for {sample.source} id {sample.id}; it must return a finite number"
            " or a vlmr1.rewards.Reward of one"
        )
    return reward
