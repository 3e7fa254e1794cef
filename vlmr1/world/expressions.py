"""Expressions: phrases that are true of exactly one thing of a scene, checked against every thing before use.

A phrase is a text and a predicate; `describe` tries the phrases of a kind in random order and keeps the first whose
predicate holds for the target alone. Left out on purpose: expressions without a target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from vlmr1.world.scenes import COLOURS, SHAPES, SIDE, Thing

Holds = Callable[[Thing], bool]
MARGIN = 7  # pixels by which a comparison must be clear to a human eye


def describe(rng: random.Random, target: Thing, scene: list[Thing], kind: str) -> str | None:
    """A phrase of that kind that holds for `target` and nothing else in the scene; None when there is none."""
    phrases = list(KINDS[kind](target, scene))
    rng.shuffle(phrases)
    for text, holds in phrases:
        if [thing for thing in scene if holds(thing)] == [target]:
            return text
    return None


def _attribute(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    yield f"the {target.name}", lambda t: t.name == target.name
    yield f"the {target.colour} object", lambda t: t.colour == target.colour
    yield f"the {target.shape}", lambda t: t.shape == target.shape


def _shape(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    yield f"the {target.shape}", lambda t: t.shape == target.shape


def _place(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    """Halves of the picture: clearly so for the target, not even barely for another thing."""
    middle, (x, y) = SIDE / 2, target.centre
    if x + MARGIN <= middle:
        yield "the object on the left", lambda t: t.centre[0] <= middle
    if x >= middle + MARGIN:
        yield "the object on the right", lambda t: t.centre[0] >= middle
    if y + MARGIN <= middle:
        yield "the object at the top", lambda t: t.centre[1] <= middle
    if y >= middle + MARGIN:
        yield "the object at the bottom", lambda t: t.centre[1] >= middle


def _relation(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    """Sides of another thing: wholly and clearly so for the target, not even by its centre for a third."""
    for other in scene:
        if other is target or [t.name for t in scene].count(other.name) != 1:
            continue
        if target.box[2] + MARGIN <= other.box[0]:
            yield f"the object left of the {other.name}", _beyond(other, axis=0, sign=-1)
        if target.box[0] >= other.box[2] + MARGIN:
            yield f"the object right of the {other.name}", _beyond(other, axis=0, sign=1)
        if target.box[3] + MARGIN <= other.box[1]:
            yield f"the object above the {other.name}", _beyond(other, axis=1, sign=-1)
        if target.box[1] >= other.box[3] + MARGIN:
            yield f"the object below the {other.name}", _beyond(other, axis=1, sign=1)


def _beyond(other: Thing, axis: int, sign: int) -> Holds:
    """Whether a thing's centre lies on that side of another's."""
    return lambda thing: thing is not other and sign * (thing.centre[axis] - other.centre[axis]) >= 0


def _superlative(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    def first(*measures: Callable[[Thing], float]) -> Holds:
        """Clearly first by every measure: no other thing comes within the margin."""
        return lambda t: all(m(t) >= m(o) + MARGIN for m in measures for o in scene if o is not t)

    yield "the largest object", first(lambda t: t.side, lambda t: t.ink)
    yield "the smallest object", first(lambda t: -t.side, lambda t: -t.ink)
    # By the centre and by the edge: a large thing may reach further than a small one that lies further out.
    yield "the leftmost object", first(lambda t: -t.centre[0], lambda t: -t.box[0])
    yield "the rightmost object", first(lambda t: t.centre[0], lambda t: t.box[2])
    yield "the topmost object", first(lambda t: -t.centre[1], lambda t: -t.box[1])
    yield "the bottommost object", first(lambda t: t.centre[1], lambda t: t.box[3])


def _negation(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    others = {t.colour for t in scene} - {target.colour}
    for colour in sorted(others) or [c for c in COLOURS if c != target.colour]:
        yield f"the object that is not {colour}", _lacks("colour", colour)
    for shape in sorted({t.shape for t in scene} - {target.shape}) or [s for s in SHAPES if s != target.shape]:
        yield f"the object that is not a {shape}", _lacks("shape", shape)


def _lacks(attribute: str, value: str) -> Holds:
    return lambda thing: getattr(thing, attribute) != value


KINDS: dict[str, Callable[[Thing, list[Thing]], Iterator[tuple[str, Holds]]]] = {
    "attribute": _attribute,
    "shape": _shape,
    "place": _place,
    "relation": _relation,
    "superlative": _superlative,
    "negation": _negation,
}
