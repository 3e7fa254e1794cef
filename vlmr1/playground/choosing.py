"""Which rollouts to look at: groups by step, source and reward, with filters, in an order."""

from __future__ import annotations

from collections.abc import Iterable

from vlmr1.playground.rollouts import Group, Run

FILTERS = ("unread", "wrong", "truncated", "zero_variance", "alarm")
ORDERS = ("step", "latest", "lowest", "highest", "widest")


def chosen(run: Run, wanted: dict[str, str]) -> list[Group]:
    """The groups that pass every filter, in the order asked for.

    `show` names FILTERS between commas, all of which must hold; `first`, `last` (step), `least`, `most` (mean reward)
    and `source` bound them; `order` is one of ORDERS. Raises ValueError naming the field.
    """
    show = [name for name in wanted.get("show", "").split(",") if name]
    order = wanted.get("order") or "step"
    if unknown := [name for name in show if name not in FILTERS]:
        raise ValueError(f"show: {unknown[0]!r} is none of {', '.join(FILTERS)}")
    if order not in ORDERS:
        raise ValueError(f"order: {order!r} is none of {', '.join(ORDERS)}")
    bounds = {name: _bound(wanted, name) for name in ("first", "last", "least", "most")}
    found = [group for group in run.groups if _within(group, bounds, wanted.get("source"))]
    found = [group for group in found if all(_holds(run, group, name) for name in show)]
    return _ordered(found, order)


def _bound(wanted: dict[str, str], name: str) -> float | None:
    try:
        return float(wanted[name]) if wanted.get(name) else None
    except ValueError as error:
        raise ValueError(f"{name}: a number is needed, it is {wanted[name][:40]!r}") from error


def _within(group: Group, bounds: dict[str, float | None], source: str | None) -> bool:
    first, last, least, most = bounds.values()
    return (
        (first is None or group.step >= first)
        and (last is None or group.step <= last)
        and (least is None or group.mean >= least)
        and (most is None or group.mean <= most)
        and (not source or group.source == source)
    )


def _holds(run: Run, group: Group, name: str) -> bool:
    match name:
        case "unread":
            return group.unread > 0
        case "wrong":
            return not any(group.judged)
        case "truncated":
            return group.truncated > 0
        case "alarm":
            return group.step in run.alarms
    return group.zero_variance


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
