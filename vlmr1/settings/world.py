"""The embedded worlds' block of params.yaml: one part a task, each null where it is not drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from vlmr1.settings.base import Block, Count, Name, Names, Pair, Share

WORLD_FOLDER = "data/world"  # where the world stage writes
SHAPES = 4  # of the objects that expressions are about

Kind = Literal[
    "attribute", "shape", "place", "relation", "superlative", "negation", "exclusion", "no_target"
]  # of expression
Shape = Literal["square", "disc", "cross", "frame", "triangle", "diamond"]
Family = Literal["bars", "counting", "rectangle", "right_triangle", "angles", "triangle", "clock"]
Form = Literal["step_1", "step_2", "whole", "text_only", "vision_only"]
Act = Literal["tab", "switch", "row", "button", "dialog", "field", "key", "hide"]
Label = Literal[
    "No Defect",
    "Operation No Response",
    "Virtual Keyboard Related Issue",
    "Navigation Logic Error",
    "Unexpected Task Result",
]

_LIST = BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
_SOME = Field(min_length=1)


class Objects(Block):
    """What pictures of coloured shapes have in common."""

    pictures: Count
    objects: Pair  # fewest and most objects of a picture
    colours: Names
    sides: Pair  # shortest and longest side of an object, pixels
    grid: Count  # sides and positions are multiples of it

    @model_validator(mode="after")
    def _drawable(self) -> Objects:
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError("objects: fewest and most, at least 1 and in this order")
        if not 7 <= self.sides[0] <= self.sides[1]:
            raise ValueError("sides: shortest and longest, at least 7 and in this order")
        return self


class RecSplit(Objects):
    """Pictures with one expression each."""

    distinct: Literal["colours", "names"]  # what no two objects of a picture share
    expressions: Annotated[tuple[Kind, ...], _LIST, _SOME]  # drawn with equal chance; one named twice, twice as often

    @model_validator(mode="after")
    def _distinct(self) -> RecSplit:
        most = len(set(self.colours)) * (1 if self.distinct == "colours" else SHAPES)
        if self.objects[1] > most:
            raise ValueError(f"objects: these colours give at most {most} objects of distinct {self.distinct}")
        return self


class OvdSplit(Objects):
    """Pictures with a list of names to look for. A category is a colour and a shape."""

    shapes: Annotated[tuple[Shape, ...], _LIST, _SOME]
    held_out: Annotated[tuple[str, ...], _LIST]  # categories, e.g. red cross
    draw: Literal["known", "held_out"]  # objects of all categories but those, and no word of those; or of just those
    asked: Pair  # fewest and most names asked for that are there
    negatives: Pair  # fewest and most that are not, each near in colour or shape to something there
    empty: Share  # of the pictures, where nothing asked for is there; as many names are asked for as elsewhere

    @property
    def categories(self) -> tuple[str, ...]:
        """What may be asked for."""
        every = tuple(f"{colour} {shape}" for colour in self.colours for shape in self.shapes)
        return every if self.draw == "held_out" else tuple(name for name in every if name not in self.held_out)

    @property
    def drawn(self) -> tuple[str, ...]:
        """What may be in a picture."""
        return self.held_out if self.draw == "held_out" else self.categories

    @model_validator(mode="after")
    def _askable(self) -> OvdSplit:
        if not 1 <= self.asked[0] <= self.asked[1]:
            raise ValueError("asked: fewest and most, at least 1 and in this order (empty pictures are a share)")
        if not 0 <= self.negatives[0] <= self.negatives[1]:
            raise ValueError("negatives: fewest and most, in this order")
        if unknown := set(self.held_out) - {f"{colour} {shape}" for colour in self.colours for shape in self.shapes}:
            raise ValueError(f"held_out: {min(unknown)} is no colour and shape of this split")
        if not self.drawn or len(self.categories) < 2:
            raise ValueError("held_out: at least one category to draw and two to ask for are needed")
        return self


class MathSplit(Block):
    """Questions about diagrams, each in several variants and forms."""

    questions: Count
    variants: Count  # of each question: the same words, other numbers
    families: Annotated[tuple[Family, ...], _LIST, _SOME]  # taken in turn
    forms: Annotated[tuple[Form, ...], _LIST, _SOME]  # the rows of each variant

    @model_validator(mode="after")
    def _once(self) -> MathSplit:
        if len(set(self.forms)) != len(self.forms):
            raise ValueError("forms: each at most once")
        return self

    @property
    def rows(self) -> int:
        return self.questions * self.variants * len(self.forms)


class GuiSplit(Block):
    """Pairs of screens with an action between them."""

    pairs: Count
    actions: Annotated[tuple[Act, ...], _LIST, _SOME]  # drawn with equal chance
    labels: Annotated[tuple[Label, ...], _LIST, _SOME]  # likewise; one named twice, twice as often
    changes: Pair  # fewest and most harmless changes of a pair: clock, battery, dot, banner, light, cursor

    @model_validator(mode="after")
    def _some(self) -> GuiSplit:
        if not 1 <= self.changes[0] <= self.changes[1] <= 5:
            raise ValueError("changes: fewest and most, 1 to 5 and in this order")
        return self


class RecWorld(Block):
    splits: dict[Name, RecSplit] = Field(min_length=1)


class OvdWorld(Block):
    splits: dict[Name, OvdSplit] = Field(min_length=1)


class MathWorld(Block):
    splits: dict[Name, MathSplit] = Field(min_length=1)


class GuiWorld(Block):
    splits: dict[Name, GuiSplit] = Field(min_length=1)


class World(Block):
    seed: int
    rec: RecWorld | None
    ovd: OvdWorld | None
    math: MathWorld | None
    gui: GuiWorld | None

    @model_validator(mode="after")
    def _one_at_least(self) -> World:
        if not (self.rec or self.ovd or self.math or self.gui):
            raise ValueError("one of rec, ovd, math and gui at least (else world: null)")
        return self
