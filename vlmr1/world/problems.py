"""Problems: a question in two steps about a diagram, with the answers that follow from what is drawn.

A family is a function that settles the words of a question and returns a function that draws a variant of it: the same
words, other numbers. Every problem is told in five ways, so that its forms are twins of each other: both steps, the
whole, the whole with its facts in words, and the whole written into the picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vlmr1.world.charts import HEIGHT, MOST, WIDTH, Bars, Clock, Crowd, clock_time
from vlmr1.world.draw import Canvas
from vlmr1.world.geometry import CELLS, Dial, OnGrid, Triangle
from vlmr1.world.scenes import SHAPES, scatter

COLOURS = ("red", "green", "blue", "yellow")
PLURALS = {"square": "squares", "disc": "discs", "cross": "crosses", "frame": "frames"}
LETTERS = "ABC"


class Diagram(Protocol):
    def draw(self, canvas: Canvas) -> None: ...


@dataclass(frozen=True)
class Question:
    text: str
    answer: str  # a number as written; of choices the right one
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    diagram: Diagram
    steps: tuple[Question, Question]
    whole: Question
    facts: str  # what the steps find out, in words: with them the whole needs no picture
    written: str  # the whole as it is written into the picture


Variant = Callable[[random.Random], Problem]


def bars(rng: random.Random) -> Variant:
    a, b = rng.sample(COLOURS, 2)
    task, chosen = rng.choice(("sum", "difference", "which")), rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        colours = rng.sample(COLOURS, len(COLOURS))
        heights = {colour: rng.randint(1, MOST) for colour in colours}
        while heights[a] == heights[b] or (task == "difference" and heights[a] < heights[b]):
            heights[a], heights[b] = rng.randint(1, MOST), rng.randint(1, MOST)
        x, y = heights[a], heights[b]
        if task == "which":
            whole = Question("Which bar is taller?", a if x > y else b, (a, b))
            written = "Which is taller?"
        elif task == "sum":
            whole = _maybe(rng, chosen, f"How tall are the {a} bar and the {b} bar together?", x + y, x, y)
            written = f"{a} + {b} = ?"
        else:
            whole = _maybe(rng, chosen, f"How much taller is the {a} bar than the {b} bar?", x - y, x, y)
            written = f"{a} - {b} = ?"
        return Problem(
            Bars(tuple(colours), tuple(heights.values())),
            (Question(f"How tall is the {a} bar?", str(x)), Question(f"How tall is the {b} bar?", str(y))),
            whole,
            f"The {a} bar is {x} tall. The {b} bar is {y} tall.",
            written,
        )

    return vary


def counting(rng: random.Random) -> Variant:
    a, b = rng.sample(COLOURS, 2) if rng.random() < 0.5 else rng.sample(SHAPES, 2)
    many_a, many_b = (PLURALS.get(word, f"{word} objects") for word in (a, b))
    task, chosen = rng.choice(("sum", "difference", "which")), rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        while True:
            crowd = _crowd(rng)
            x, y = crowd.count(a), crowd.count(b)
            if x and y and (task == "sum" or x > y or (task == "which" and x != y)):
                break
        if task == "which":
            most = many_a if x > y else many_b
            whole = Question(f"Are there more {many_a} or more {many_b}?", most, (many_a, many_b))
            written = "Which are more?"
        elif task == "sum":
            whole = _maybe(rng, chosen, f"How many {many_a} and {many_b} are there together?", x + y, x, y)
            written = f"{a} + {b} = ?"
        else:
            whole = _maybe(rng, chosen, f"How many more {many_a} than {many_b} are there?", x - y, x, y)
            written = f"{a} - {b} = ?"
        return Problem(
            crowd,
            (Question(f"How many {many_a} are there?", str(x)), Question(f"How many {many_b} are there?", str(y))),
            whole,
            f"Number of {many_a}: {x}. Number of {many_b}: {y}.",
            written,
        )

    return vary


def _crowd(rng: random.Random) -> Crowd:
    """Three to nine shapes, few colours and shapes at a time, so that there is something to count."""
    colours, shapes = rng.sample(COLOURS, rng.randint(2, 3)), rng.sample(SHAPES, rng.randint(2, 3))
    names = [f"{rng.choice(colours)} {rng.choice(shapes)}" for _ in range(rng.randint(3, 9))]
    things = None
    while things is None:
        things = scatter(rng, names, (21, 28), 7, (WIDTH, HEIGHT))
    return Crowd(tuple(things))


def rectangle(rng: random.Random) -> Variant:
    colour, task, chosen = rng.choice(COLOURS), rng.choice(("area", "perimeter")), rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        w, h, figure = _figure(rng, colour, halved=False)
        right, wrong = (w * h, 2 * (w + h)) if task == "area" else (2 * (w + h), w * h)
        return Problem(
            figure,
            _sides(w, h, f"{colour} rectangle"),
            _maybe(rng, chosen, f"What is the {task} of the {colour} rectangle?", right, wrong, w + h),
            f"The {colour} rectangle is {w} wide and {h} high.",
            f"{task} = ?",
        )

    return vary


def right_triangle(rng: random.Random) -> Variant:
    colour, chosen = rng.choice(COLOURS), rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        w, h, figure = _figure(rng, colour, halved=True)
        return Problem(
            figure,
            _sides(w, h, f"{colour} triangle"),
            _maybe(rng, chosen, f"What is the area of the {colour} triangle?", w * h / 2, w * h, w + h),
            f"The {colour} triangle has a right angle. It is {w} wide and {h} high.",
            "area = ?",
        )

    return vary


def _figure(rng: random.Random, colour: str, halved: bool) -> tuple[int, int, OnGrid]:
    w, h = rng.randint(1 + halved, CELLS), rng.randint(1 + halved, CELLS)
    return w, h, OnGrid(colour, rng.randint(0, CELLS - w), rng.randint(0, CELLS - h), w, h, halved)


def _sides(w: int, h: int, name: str) -> tuple[Question, Question]:
    return Question(f"How wide is the {name}?", str(w)), Question(f"How high is the {name}?", str(h))


def angles(rng: random.Random) -> Variant:
    a, b = rng.sample(COLOURS, 2)
    task, chosen = rng.choice(("sum", "difference")), rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        x, y = (30 * rng.randint(1, 5) for _ in range(2))
        while task == "difference" and x <= y:
            x, y = (30 * rng.randint(1, 5) for _ in range(2))
        if task == "sum":
            text, right = f"How many degrees are the {a} angle and the {b} angle together?", x + y
        else:
            text, right = f"By how many degrees is the {a} angle larger than the {b} angle?", x - y
        order = ((a, x), (b, y)) if rng.random() < 0.5 else ((b, y), (a, x))
        return Problem(
            Dial((order[0][0], order[1][0]), 30 * rng.randrange(12), (order[0][1], order[1][1])),
            _degrees((a, x), (b, y)),
            _maybe(rng, chosen, text, right, x, step=30),
            f"The {a} angle is {x} degrees. The {b} angle is {y} degrees.",
            f"{a} {'+' if task == 'sum' else '-'} {b} = ?",
        )

    return vary


def triangle(rng: random.Random) -> Variant:
    a, b, c = rng.sample(COLOURS, 3)
    chosen = rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        x, y = (5 * rng.randint(6, 20) for _ in range(2))
        while not 30 <= 180 - x - y <= 100:
            x, y = (5 * rng.randint(6, 20) for _ in range(2))
        z = 180 - x - y
        corners = [(a, x), (b, y), (c, z)]
        rng.shuffle(corners)
        colours, sizes = zip(*corners, strict=True)
        return Problem(
            Triangle(colours, sizes, colours.index(c), 5 * rng.randrange(72)),
            _degrees((a, x), (b, y)),
            _maybe(rng, chosen, f"How many degrees is the {c} angle of the triangle?", z, x + y, step=10),
            f"The {a} angle is {x} degrees. The {b} angle is {y} degrees.",
            f"{c} angle = ?",
        )

    return vary


def _degrees(*angles: tuple[str, int]) -> tuple[Question, Question]:
    first, second = (Question(f"How many degrees is the {name} angle?", str(size)) for name, size in angles)
    return first, second


def clock(rng: random.Random) -> Variant:
    colour, chosen = rng.choice(COLOURS), rng.random() < 0.5

    def vary(rng: random.Random) -> Problem:
        hour, minute = rng.randrange(12), 5 * rng.randrange(12)
        face = Clock(hour, minute, colour, rng.random() < 0.5)
        if chosen:
            near = (((hour + 1) % 12, minute), (hour, (minute + 15) % 60), (minute // 5, 5 * hour))  # hands swapped
            whole = _choice(rng, "What time is it?", clock_time(hour, minute), [clock_time(*other) for other in near])
        else:
            whole = Question("How many minutes is it past 12 o'clock?", str(60 * hour + minute))
        return Problem(
            face,
            (
                Question("Which hour has begun? Say 12 for 12 o'clock.", str(hour or 12)),
                Question("How many minutes is it past the full hour?", str(minute)),
            ),
            whole,
            f"The hour that has begun is {hour or 12}. It is {minute} minutes past it.",
            "time = ?" if chosen else "minutes past 12 = ?",
        )

    return vary


def _maybe(rng: random.Random, chosen: bool, text: str, right: float, *mistakes: float, step: int = 1) -> Question:
    """A question for a number, or for one of three: the right one among likely mistakes and near values."""
    if not chosen:
        return Question(text, f"{right:g}")
    wrong = {*mistakes, *(right + n * step for n in (-2, -1, 1, 2))} - {right}
    lower = [value for value in wrong if 0 <= value < right]
    higher = [value for value in wrong if value > right]
    below = min(rng.randrange(3), len(lower))  # so that the right one is the least, the middle or the most alike
    others = rng.sample(sorted(lower), below) + rng.sample(sorted(higher), 2 - below)
    return _choice(rng, text, f"{right:g}", [f"{value:g}" for value in others])


def _choice(rng: random.Random, text: str, right: str, wrong: Sequence[str]) -> Question:
    others = sorted(set(wrong) - {right})
    choices = [right, *rng.sample(others, min(2, len(others)))]
    rng.shuffle(choices)
    return Question(text, right, tuple(choices))


FAMILIES: dict[str, Callable[[random.Random], Variant]] = {
    "bars": bars,
    "counting": counting,
    "rectangle": rectangle,
    "right_triangle": right_triangle,
    "angles": angles,
    "triangle": triangle,
    "clock": clock,
}
