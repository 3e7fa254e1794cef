"""Benchmarks of questions with checkable answers: files put together, completions read, verdicts counted.

A benchmark's own module says by which rule an answer is right and what its main number is. Where a rule cannot tell,
official pipelines ask a language model; here such answers are listed (`needed_judge`) and count as wrong, unless a
judge is given, which then decides them and is named in the result.
Left out on purpose: prompts of the official pipelines' judges; ours is `vlmr1.rewards.judge`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vlmr1.answers import Answer, read
from vlmr1.answers.choices import choices_of
from vlmr1.evaluation.asked import Asked
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.intervals import wilson
from vlmr1.evaluation.predictions import places_of, read_completions
from vlmr1.rewards.judge import Judge, foresee, llm
from vlmr1.rows import Row
from vlmr1.settings.sources import Questions
from vlmr1.sources import whole
from vlmr1.sources.lists import items
from vlmr1.sources.reading import load_json


@dataclass(frozen=True)
class Question:
    """One question: its own name, the row a reader makes of it, and its fields as the benchmark has them."""

    id: str
    row: Row
    fields: Mapping[str, Any]

    @property
    def choices(self) -> dict[str, str]:
        """The texts of its choices by letter, as far as the question lists them."""
        return choices_of(self.row.text)

    @property
    def truth(self) -> str:
        """The true answer as text."""
        return self.row.answer


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and whether a rule could tell."""

    right: bool
    told: bool = True


@dataclass(frozen=True)
class Answered:
    """A question with what became of it."""

    question: Question
    said: Answer | None  # None where it is missing
    verdict: Verdict
    judged: bool = False  # a judge was asked
    unread: bool = False  # and its reply was no verdict, so that the answer counts as wrong

    @property
    def right(self) -> bool:
        """Whether it counts as right."""
        return self.verdict.right


Rule = Callable[[Answer, Question], Verdict]
Named = Callable[[Mapping[str, Any]], str | None]  # a question's own name from its fields; None where it has none


def load_questions(name: str, path: Path, named: Named) -> list[Question]:
    """Every question of a list, in its order. Raises FileNotFoundError, or ValueError naming file, item and fault."""
    spec = Questions(role="evaluate", annotations=path.name, images="", format=name, reward="auto", only=None)  # type: ignore[arg-type]
    fields = [item for _, item in items(path)]
    keys = load_json(path) if path.suffix == ".json" else None
    ids = list(keys) if isinstance(keys, dict) else [str(place) for place in range(len(fields))]
    rows = whole(import_module(f"vlmr1.sources.{name}").read_rows(spec, path.parent))
    return [Question(named(item) or id_, row, item) for id_, row, item in zip(ids, rows, fields, strict=True)]


def answer_questions(
    questions: Sequence[Question], predictions: Path, rule: Rule, judge: Judge | None
) -> list[Answered]:
    """Every question with its verdict; one without a prediction is wrong. Raises ValueError for a malformed row."""
    names = places_of([question.id for question in questions])
    numbers: dict[str, int | None] = {str(place): place for place in range(len(questions))}
    asked = [Asked(question.row.text, question.row.images, question.truth) for question in questions]
    found = read_completions(predictions, {"id": names, "index": numbers}, asked)
    said = {place: read(one.text) for place, one in found.items()}
    verdicts = {place: rule(answer, questions[place]) for place, answer in said.items()}
    judged: set[int] = set()
    unread: set[int] = set()
    if judge is not None:
        judged = {place for place, verdict in verdicts.items() if not verdict.told and said[place].said.strip()}
        texts = {place: (said[place], full_truth(questions[place]), questions[place].row.text) for place in judged}
        foresee([texts[place] for place in sorted(judged)], judge)
        for place in judged:
            reward = llm(*texts[place], judge)
            verdicts[place] = Verdict(reward.value == 1.0, told=False)
            unread |= set() if reward.parsed else {place}
    return [
        Answered(question, said.get(place), verdicts.get(place, Verdict(False)), place in judged, place in unread)
        for place, question in enumerate(questions)
    ]


def full_truth(question: Question) -> str:
    """The true answer as a judge is told it: of a choice the letter with its text."""
    text = question.choices.get(question.truth)
    return question.truth if text is None else f"{question.truth} ({text})"


def accuracy(
    answered: Sequence[Answered], parts: Mapping[str, Callable[[Question], Any]], judge: Judge | None
) -> Result:
    """The share of right answers, over all and by each of `parts`; a list as a part's name counts under each entry."""
    figures = proportion([one.right for one in answered])
    figures |= {"missing": sum(one.said is None for one in answered)}
    open_ones = [one.question.id for one in answered if not one.verdict.told]
    figures |= {"judge": "none" if judge is None else {"url": judge.url, "model": judge.model}}
    figures |= {"needed_judge_n": len(open_ones), "needed_judge": open_ones}
    figures["judged_n"] = sum(one.judged for one in answered)
    figures["judge_unreadable_n"] = sum(one.unread for one in answered)
    figures["parts"] = {name: _by(answered, part) for name, part in parts.items()}
    return Result(figures, "accuracy", items=np.array([float(one.right) for one in answered]))


def proportion(right: Sequence[bool], name: str = "accuracy") -> dict[str, Any]:
    """A share with its 95 % Wilson interval and n."""
    low, high = wilson(sum(right), len(right))
    return {name: sum(right) / len(right), f"{name}_low": low, f"{name}_high": high, "n": len(right)}


def _by(answered: Sequence[Answered], part: Callable[[Question], Any]) -> dict[str, Any]:
    found: dict[str, list[bool]] = {}
    for one in answered:
        value = part(one.question)
        for name in value if isinstance(value, list) else [value]:
            if name not in (None, ""):
                found.setdefault(str(name), []).append(one.right)
    return {name: proportion(right) for name, right in sorted(found.items())}


def field(name: str) -> Callable[[Question], Any]:
    """A part told by a field of the question, or of its `metadata`."""
    return lambda question: question.fields.get(name, (question.fields.get("metadata") or {}).get(name))
