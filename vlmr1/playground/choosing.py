"""Which rollouts to look at: groups by step, source and reward, with filters, in an order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from vlmr1.playground.rollouts import Group, Run

FILTERS = ("unread", "wrong", "truncated", "zero_variance", "alarm")
ORDERS = ("step", "latest", "lowest", "highest", "widest")


def chosen(run: Run, wanted: dict[str, str]) -> list[Group]:
    """The groups that pass every filter, in the order asked for.

    `show` names FILTERS between commas, all of which must hold; `first`, `last` (step), `least`, `most` (mean reward)
    and `source` bound them; `order` is one of ORDERS. Raises ValueError naming the field and the mend.
    """
    order, tests = wanted.get("order") or "step", _tests(run, wanted)
    if order not in ORDERS:
        raise ValueError(f"order: {order!r} is none of {', '.join(ORDERS)}")
    found = [group for group in run.groups if all(test(group) for test in tests.values())]
    return _ordered(found, order)


def left_by_each(run: Run, wanted: dict[str, str]) -> dict[str, int]:
    """How many groups each filter would leave by itself: where all together leave none, what it is due to."""
    return {name: sum(map(test, run.groups)) for name, test in _tests(run, wanted).items()}


def _tests(run: Run, wanted: dict[str, str]) -> dict[str, Callable[[Group], bool]]:
    """The filters that are set, by name: of FILTERS, "step", "mean" and "source"."""
    show = [name for name in wanted.get("show", "").split(",") if name]
    if unknown := [name for name in show if name not in FILTERS]:
        raise ValueError(f"show: {unknown[0]!r} is none of {', '.join(FILTERS)}")
    holds: dict[str, Callable[[Group], bool]] = {
        "unread": lambda group: group.unread > 0,
        "wrong": lambda group: not any(group.judged),
        "truncated": lambda group: group.truncated > 0,
        "zero_variance": lambda group: group.zero_variance,
        "alarm": lambda group: group.step in run.alarms,
    }
    tests = {name: holds[name] for name in show}
    if (steps := _range(wanted, "first", "last", "steps")) is not None:
        tests["step"] = lambda group: steps[0] <= group.step <= steps[1]
    if (means := _range(wanted, "least", "most", "mean reward")) is not None:
        tests["mean"] = lambda group: means[0] <= group.mean <= means[1]
    if source := wanted.get("source"):
        tests["source"] = lambda group: group.source == source
    return tests


def _range(wanted: dict[str, str], low: str, high: str, what: str) -> tuple[float, float] | None:
    """Its two ends, None where neither is given."""
    if not wanted.get(low) and not wanted.get(high):
        return None
    least, most = _bound(wanted, low, -math.inf), _bound(wanted, high, math.inf)
    if least > most:
        raise ValueError(f"{what}: from {least:g} to {most:g} is nothing; swap the two")
    return least, most


def _bound(wanted: dict[str, str], name: str, default: float) -> float:
    try:
        return float(wanted.get(name) or default)
    except ValueError as error:
        raise ValueError(f"{name}: a number is needed, it is {wanted[name][:40]!r}") from error


def _ordered(groups: Iterable[Group], order: str) -> list[Group]:
    match order:
        case "latest":
            return sorted(groups, key=lambda group: (-group.step, group.number))
        case "lowest":
            return sorted(groups, key=lambda group: group.mean)
        case "highest":
            return sorted(groups, key=lambda group: -group.mean)
        case "widest":
            return sorted(groups, key=lambda group: min(group.rewards) - max(group.rewards))
    return list(groups)
