"""Rewards: pure functions from a read `Answer` and the truth to a value with its reason.

A reward never raises on what a model said. Trainer and evaluator score through a task (`vlmr1.tasks`), which names
the rewards it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reward:
    """A value in the reward's declared range, whether the answer could be read, and why the value is what it is."""

    value: float
    parsed: bool
    reason: str
