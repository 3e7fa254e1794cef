"""Expressions: phrases that are true of exactly one thing of a scene, checked against every thing before use.

A phrase is a text and a predicate; `describe` tries the phrases of a kind in random order and keeps the first whose
predicate holds for the target alone. `describe_nothing` does the reverse: a phrase that could well be true of something
in the picture and is true of nothing there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from vlmr1.world.scenes import COLOURS, SHAPES, SIDE, Thing

Holds = Callable[[Thing], bool]
MARGIN = 7  # pixels by which a comparison must be clear to a human eye
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}  # axis and direction


def describe(rng: random.Random, target: Thing, scene: list[Thing], kind: str) -> str | None:
    """A phrase of that kind that holds for `target` and nothing else in the scene; None when there is none."""
    phrases = list(KINDS[kind](target, scene))
    rng.shuffle(phrases)
    for text, holds in phrases:
        if [thing for thing in scene if holds(thing)] == [target]:
            return text
    return None


def describe_nothing(rng: random.Random, scene: list[Thing], colours: Sequence[str]) -> str | None:
    """A phrase that holds for nothing in the scene, though each asks for something near; None when there is none."""
    phrases: list[tuple[str, Holds]] = []
    for thing in scene:
        for colour in colours:
            phrases += _attribute(replace(thing, colour=colour), scene)
        for shape in SHAPES:
            phrases += _attribute(replace(thing, shape=shape), scene)
        for text, (axis, sign) in SIDES.items():
            phrases.append((f"the object {text} the {thing.name}", _beyond(thing, axis, sign)))
    rng.shuffle(phrases)
    return next((text for text, holds in phrases if not any(map(holds, scene))), None)


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
        for text, (axis, sign) in SIDES.items():
            near, far = (target, other) if sign < 0 else (other, target)
            if near.box[axis + 2] + MARGIN <= far.box[axis]:
                yield f"the object {text} the {other.name}", _beyond(other, axis, sign)


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


def _exclusion(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    """All of a sort but one: named so that the one left out is there, and clearly meant."""
    for other in scene:
        if other is target or [t.name for t in scene].count(other.name) != 1:
            continue
        yield f"the object other than the {other.name}", _but(other)
        if other.shape == target.shape:
            yield f"the {target.shape} other than the {other.colour} one", _but(other, "shape")
        if other.colour == target.colour:
            yield f"the {target.colour} object other than the {other.shape}", _but(other, "colour")


def _but(other: Thing, shared: str | None = None) -> Holds:
    """Whether a thing is another one than that, sharing an attribute with it where one is named."""
    return lambda t: t is not other and (shared is None or getattr(t, shared) == getattr(other, shared))


KINDS: dict[str, Callable[[Thing, list[Thing]], Iterator[tuple[str, Holds]]]] = {
    "attribute": _attribute,
    "shape": _shape,
    "place": _place,
    "relation": _relation,
    "superlative": _superlative,
    "negation": _negation,
    "exclusion": _exclusion,
}
