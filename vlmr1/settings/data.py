"""The data blocks of params.yaml: sources, validation, conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlmr1.settings.base import Block, Name
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


class Validate(Block):
    on_failure: Literal["stop", "skip"]  # stop the pipeline, or leave the refused rows out and say so
    decode: Literal["header", "full"]  # how much of each picture is read to see that it opens
    min_side: Annotated[float, Field(gt=0)]  # pixels, of a box


class Convert(Block):
    max_pixels: Annotated[int, Field(ge=56 * 56)]  # pictures above it are shrunk once, their boxes with them
