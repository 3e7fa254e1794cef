"""The data blocks of params.yaml: sources, validation, conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from vlmr1.settings.base import Block, Count, Name, Share
from vlmr1.settings.sources import SourceSpec
from vlmr1.settings.world import WORLD_FOLDER


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
    "reads", "path", "exists", "opens", "pixels", "format", "mode", "upright", "size", "text", "text_length", "places",
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
    max_picture_pixels: Annotated[int, Field(ge=1, le=178_956_970)]  # a larger picture is not opened at all
    min_side: Annotated[float, Field(gt=0)]  # pixels, of a box
    max_share: Share  # of its picture that a box may cover
    max_text: Count  # characters of an expression or a question


class Convert(Block):
    max_pixels: Annotated[int, Field(ge=56 * 56)]  # of a picture as the model sees it
    store_pictures: bool  # stored again, shrunk to max_pixels, boxes with them; false: read where they lie
