"""params.yaml as frozen typed models: every key known, every value of its type, no option that would be ignored.

There are no defaults here: params.yaml says everything, so that `dvc params diff` tells the whole story.
Read as YAML 1.2, because `dvc exp run -S lr=3e-5` writes `3e-05`, which YAML 1.1 reads as text.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS = Path("params.yaml")

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[tuple[int, int], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v), Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WorldSplit(Block):
    """One split of the embedded world."""

    pictures: Count
    objects: Pair  # fewest and most objects of a picture
    colours: Names
    sides: Pair  # shortest and longest side of an object, pixels
    grid: Count  # sides and positions are multiples of it
    distinct: Literal["colours", "names"]  # what no two objects of a picture share
    expressions: tuple[Literal["attribute", "relation", "superlative", "negation"], ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return value | {"expressions": tuple(value["expressions"])} if isinstance(value, dict) and isinstance(value.get("expressions"), list) else value


class World(Block):
    seed: int
    splits: dict[Name, WorldSplit] = Field(min_length=1)


class SourceSpec(Block):
    """One list of annotations and what it is used for."""

    format: Literal["refcoco", "rec_json"]
    role: Literal["warmup", "train", "evaluate"]
    annotations: str  # relative to data.root; a folder for refcoco, a file for rec_json
    images: str  # relative to data.root
    split: str | None  # refcoco only: which of the list's splits

    @model_validator(mode="after")
    def _split_belongs(self) -> SourceSpec:
        if (self.format == "refcoco") != (self.split is not None):
            raise ValueError(f"split: {'needed by' if self.format == 'refcoco' else 'has no meaning for'} format {self.format}")
        return self


class TinyModel(Block):
    """Sizes of the model built from nothing."""

    vocabulary: Count  # upper bound; the corpus may give fewer
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    vision_hidden_size: Count
    vision_intermediate_size: Count
    vision_depth: Count
    initializer_range: Rate
    tie_word_embeddings: bool


class Compute(Block):
    """How models are loaded and run, in every stage."""

    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool


class Optimisation(Block):
    """What every training stage says about its optimiser, in transformers' own names. AdamW."""

    seed: int
    learning_rate: Rate
    lr_scheduler_type: Literal["constant_with_warmup", "linear", "cosine", "warmup_stable_decay"]
    decay_share: Share | None  # warmup_stable_decay only: the share of the steps in which the rate falls to 0
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    adam_beta2: Share
    max_grad_norm: Rate
    logging_steps: Count
    save_steps: Count

    @model_validator(mode="after")
    def _honoured(self) -> Optimisation:
        if (self.lr_scheduler_type == "warmup_stable_decay") != (self.decay_share is not None):
            raise ValueError("decay_share: belongs to lr_scheduler_type warmup_stable_decay, and only to it (else null)")
        if self.save_steps % self.logging_steps:
            raise ValueError("save_steps: must be a multiple of logging_steps, so that a resumed run logs the same rows")
        return self

    def scheduler_kwargs(self, steps: int) -> dict[str, Any]:
        """transformers' arguments of the schedule."""
        if self.decay_share is None:
            return {}
        return {"num_decay_steps": round(self.decay_share * steps), "decay_type": "linear"}
