"""We-Math: 525 problems of two or three steps, each step asked by itself beside the whole; the four-way score.

Of a problem: the whole right and every step right is complete mastery (CM); the whole wrong though every step is right,
inadequate generalisation (IG); the whole wrong and a step wrong, insufficient knowledge (IK); the whole right though a
step is wrong, rote memorisation (RM), strictly; loosely only if every step is wrong, else it is mastery.
Score = (problems − IG/2 − RM − IK) / problems, strict and loose (Qiao et al., 2024, as in VLMEvalKit). The rate of RM
is of problems with the whole right, as published. A question's name is ID_key, e.g. 2steps_7_2steps_multi.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlmr1.answers import Answer
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.intervals import bootstrap_mean
from vlmr1.evaluation.questions import Answered, Question, Verdict, accuracy, field
from vlmr1.evaluation.verdicts import by_letter
from vlmr1.rewards.judge import Judge

STEPS = (2, 3)
WORTH = {"CM": 1.0, "IG": 0.5, "IK": 0.0, "RM": 0.0}


def named(fields: Mapping[str, Any]) -> str | None:
    return f"{fields['ID']}_{fields['key']}" if "ID" in fields and "key" in fields else None


def verdict(said: Answer, question: Question) -> Verdict:
    """By letter."""
    return by_letter(said, question)


def result(answered: Sequence[Answered], judge: Judge | None) -> Result:
    """Strict and loose score with their parts. Raises ValueError for a problem that is not whole in the list."""
    found = accuracy(answered, {"step": field("key")}, judge)
    problems = _problems(answered)
    figures: dict[str, Any] = {}
    strict: list[str] = []
    for way in ("strict", "loose"):
        kinds = [_kind(steps, whole, way) for steps, whole in problems]
        strict = strict or kinds
        worth = [WORTH[kind] for kind in kinds]
        low, high = bootstrap_mean(worth)
        figures |= {f"score_{way}": sum(worth) / len(worth), f"score_{way}_low": low, f"score_{way}_high": high}
        counted = {kind: kinds.count(kind) for kind in WORTH}
        mastered = counted["CM"] + counted["RM"]
        rates = {f"{kind}_rate": counted[kind] / len(kinds) for kind in ("IK", "IG", "CM")}
        rates["RM_rate"] = counted["RM"] / mastered if mastered else 0.0
        figures[way] = counted | rates
    figures |= {"problems": len(problems)} | found.figures
    return Result(figures, "score_strict", items=np.array([WORTH[kind] for kind in strict]))


def _problems(answered: Sequence[Answered]) -> list[tuple[list[bool], bool]]:
    """(each step right?, the whole right?) of every problem."""
    of_problem: dict[tuple[str, str], dict[str, bool]] = {}
    for one in answered:
        steps, _, part = one.question.row.kind.partition("steps_")
        of_problem.setdefault((one.question.row.group, steps), {})[part] = one.right
    found = []
    for (id_, steps), parts in of_problem.items():
        wanted = [str(step) for step in range(1, int(steps) + 1)] if steps in map(str, STEPS) else []
        if not wanted or set(parts) != {*wanted, "multi"}:
            raise ValueError(
                f"We-Math problem {id_}: its parts are {', '.join(sorted(parts))} of {steps} steps; each step from 1 on"
                " and multi are needed, for the score is of whole problems"
            )
        found.append(([parts[step] for step in wanted], parts["multi"]))
    return found


def _kind(steps: list[bool], whole: bool, way: str) -> str:
    if not whole:
        return "IG" if all(steps) else "IK"
    return "CM" if (all(steps) if way == "strict" else any(steps)) else "RM"
