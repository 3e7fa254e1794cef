"""The data blocks of params.yaml: the embedded world, sources, validation, conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from vlmr1.settings.base import Block, Count, Name, Names, Pair, Share
from vlmr1.settings.sources import SourceSpec

SHAPES = 4  # of the world's objects
WORLD_FOLDER = "data/world"  # where the world stage writes
Kind = Literal["attribute", "shape", "place", "relation", "superlative", "negation"]  # of expression


class WorldSplit(Block):
    """One split of the embedded world."""

    pictures: Count
    objects: Pair  # fewest and most objects of a picture
    colours: Names
    sides: Pair  # shortest and longest side of an object, pixels
    grid: Count  # sides and positions are multiples of it
    distinct: Literal["colours", "names"]  # what no two objects of a picture share
    expressions: tuple[Kind, ...] = Field(min_length=1)  # drawn with equal chance; one named twice, twice as often

    @model_validator(mode="after")
    def _drawable(self) -> WorldSplit:
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError("objects: fewest and most, at least 1 and in this order")
        if not 7 <= self.sides[0] <= self.sides[1]:
            raise ValueError("sides: shortest and longest, at least 7 and in this order")
        most = len(set(self.colours)) * (1 if self.distinct == "colours" else SHAPES)
        if self.objects[1] > most:
            raise ValueError(f"objects: these colours give at most {most} objects of distinct {self.distinct}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return (
            value | {"expressions": tuple(value["expressions"])}
            if isinstance(value, dict) and isinstance(value.get("expressions"), list)
            else value
        )


class World(Block):
    seed: int
    splits: dict[Name, WorldSplit] = Field(min_length=1)


class Data(Block):
    """The data set the graph runs on."""

    root: str  # the world's folder, or one of your own; everything below is relative to it
    sources: dict[Name, SourceSpec]

    @model_validator(mode="after")
    def _roles(self) -> Data:
        missing = {"train", "evaluate"} - {source.role for source in self.sources.values()}
        if missing:
            raise ValueError(f"sources: no source has role {' or '.join(sorted(missing))}")
        return self

    @model_validator(mode="after")
    def _plain_root(self) -> Data:
        plain = Path(self.root).as_posix()
        if plain != self.root or self.root in ("", "."):
            raise ValueError(f"root: name a folder plainly, e.g. {plain if plain != '.' else WORLD_FOLDER}")
        return self

    @property
    def embedded(self) -> bool:
        return self.root == WORLD_FOLDER


Rule = Literal[
    "path", "exists", "opens", "pixels", "format", "mode", "upright", "size", "text", "text_length", "places",
    "box_finite", "box_left", "box_top", "box_right", "box_bottom", "box_width", "box_height", "box_share",
    "labels", "answer", "itself", "duplicate", "contradiction", "leak", "near_leak",
]  # fmt: skip


Rules = Annotated[tuple[Rule, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]


class Validate(Block):
    """What raw annotations must be before anything is made of them."""

    on_failure: Literal["stop", "skip"]  # stop the pipeline, or leave the refused rows out and say so
    warnings: Rules  # that are only told; every other one refuses a row
    decode: Literal["none", "header", "full"]  # how much of each picture is read; none: annotations alone are judged
    workers: Count  # processes that read pictures
    max_picture_pixels: Count  # a larger picture is not opened at all
    min_side: Annotated[float, Field(gt=0)]  # pixels, of a box
    max_share: Share  # of its picture that a box may cover
    max_text: Count  # characters of an expression or a question


class Convert(Block):
    max_pixels: Annotated[int, Field(ge=56 * 56)]  # of a picture as the model sees it
    store_pictures: bool  # stored again, shrunk to max_pixels, boxes with them; false: read where they lie
