"""What only some benchmarks are asked, and what a scorer is: a function of two files and these choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlmr1.evaluation.compare import Result
from vlmr1.rewards.judge import Judge


@dataclass(frozen=True)
class Choices:
    """How a benchmark is scored."""

    scenario: str | None = None  # d3: intra or inter
    judge: Judge | None = None  # questions: who decides what no rule can tell; None leaves it wrong
    protocol: str | None = None  # rec: the items that a protocol asks; None for all
    asked_only: bool = False  # the items that have a prediction, where not all were asked; else missing is wrong


Scorer = Callable[[Path, Path, Choices], Result]  # annotations, predictions
