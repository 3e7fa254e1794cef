"""Expressions: phrases that are true of exactly one thing of a scene, checked against every thing before use.

A phrase is a text and a predicate; `describe` tries the phrases of a kind in random order and keeps the first whose
predicate holds for the target alone. Left out on purpose: expressions without a target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from vlmr1.world.scenes import Thing

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


def _relation(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    for other in scene:
        if other is not target and [t.name for t in scene].count(other.name) == 1:
            yield f"the object left of the {other.name}", _beside(lambda t, o: t.box[2] + MARGIN <= o.box[0], other)
            yield f"the object right of the {other.name}", _beside(lambda t, o: t.box[0] >= o.box[2] + MARGIN, other)
            yield f"the object above the {other.name}", _beside(lambda t, o: t.box[3] + MARGIN <= o.box[1], other)
            yield f"the object below the {other.name}", _beside(lambda t, o: t.box[1] >= o.box[3] + MARGIN, other)


def _beside(relation: Callable[[Thing, Thing], bool], other: Thing) -> Holds:
    return lambda thing: relation(thing, other)


def _superlative(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    def beats(measure: Callable[[Thing], float]) -> Holds:
        """Clearly first by the measure: no other thing comes within the margin."""
        return lambda t: all(measure(t) >= measure(o) + MARGIN for o in scene if o is not t)

    if len(scene) > 1:
        yield "the largest object", beats(lambda t: t.side)
        yield "the smallest object", beats(lambda t: -t.side)
        yield "the leftmost object", beats(lambda t: -t.centre[0])
        yield "the rightmost object", beats(lambda t: t.centre[0])
        yield "the topmost object", beats(lambda t: -t.centre[1])
        yield "the bottommost object", beats(lambda t: t.centre[1])


def _negation(target: Thing, scene: list[Thing]) -> Iterator[tuple[str, Holds]]:
    for colour in sorted({t.colour for t in scene} - {target.colour}):
        yield f"the object that is not {colour}", _lacks("colour", colour)
    for shape in sorted({t.shape for t in scene} - {target.shape}):
        yield f"the object that is not a {shape}", _lacks("shape", shape)


def _lacks(attribute: str, value: str) -> Holds:
    return lambda thing: getattr(thing, attribute) != value


KINDS: dict[str, Callable[[Thing, list[Thing]], Iterator[tuple[str, Holds]]]] = {
    "attribute": _attribute,
    "shape": _shape,
    "relation": _relation,
    "superlative": _superlative,
    "negation": _negation,
}
