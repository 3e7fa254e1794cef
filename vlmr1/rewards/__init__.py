"""Rewards: pure functions from a read `Answer` and the truth to a value with its reason.

A reward never raises on what a model said; its value is in the range its docstring declares for any text whatsoever.
Trainer and evaluator score through a task (`vlmr1.tasks`), which names the rewards it is made of. How they differ from
the original project's is in docs/rewards.md. Left out on purpose: anything that needs a model; only `llm` asks one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reward:
    """A value in the reward's declared range, whether the answer could be read, and why the value is what it is."""

    value: float
    parsed: bool
    reason: str
