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
SMALLEST_VOCABULARY = 600
SHAPES = 4  # of the world's objects
WORLD_FOLDER = "data/world"  # where the world stage writes

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[tuple[int, int], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v), Field(min_length=1)
]
Kind = Literal["attribute", "shape", "place", "relation", "superlative", "negation"]  # of expression
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
            raise ValueError(
                f"split: {'needed by' if self.format == 'refcoco' else 'has no meaning for'} format {self.format}"
            )
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

    @model_validator(mode="after")
    def _buildable(self) -> TinyModel:
        if self.vocabulary < SMALLEST_VOCABULARY:
            raise ValueError(f"vocabulary: at least {SMALLEST_VOCABULARY}: bytes, numbers and marks take so many")
        if self.hidden_size % (2 * self.heads) or self.hidden_size // self.heads < 8:
            raise ValueError("heads: hidden_size must be an even multiple of it, of at least 8 a head")
        if self.vision_hidden_size % (4 * self.heads):
            raise ValueError("heads: vision_hidden_size must be a multiple of four times as many")
        return self


class Compute(Block):
    """How models are loaded and run, in every stage."""

    dtype: Literal["float32", "bfloat16"]  # of the arithmetic; trained weights stay float32, else small steps are lost
    activation_checkpointing: bool


class Optimisation(Block):
    """What every training stage says about its optimiser, in transformers' own names. AdamW."""

    learning_rate: Rate
    lr_scheduler_type: Literal["constant_with_warmup", "linear", "cosine", "warmup_stable_decay"]
    decay_share: Share | None  # warmup_stable_decay only: the share of the steps in which the rate falls to 0
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    adam_beta2: Annotated[float, Field(gt=0, lt=1)]
    max_grad_norm: Rate
    save_steps: Count

    @model_validator(mode="after")
    def _honoured(self) -> Optimisation:
        if (self.lr_scheduler_type == "warmup_stable_decay") != (self.decay_share is not None):
            raise ValueError(
                "decay_share: belongs to lr_scheduler_type warmup_stable_decay, and only to it (else null)"
            )
        return self


def _fits(settings: Optimisation, steps: int, block: str = "") -> None:
    """Refuse a warm-up or a saving interval that the run is too short for."""
    for name in ("warmup_steps", "save_steps"):
        if getattr(settings, name) > steps:
            raise ValueError(f"{block}{name}: is beyond the run's {steps} steps")


class Grpo(Optimisation):
    """GRPO, in TRL's names where it has one. A step is one optimiser step over `prompts_per_step` groups."""

    seed: int
    steps: Count
    prompts_per_step: Count
    num_generations: Annotated[int, Field(ge=2)]
    num_iterations: Count
    epsilon: Rate | None  # the clip; without effect, hence null, with one iteration
    beta: Annotated[float, Field(ge=0)]  # weight of the KL to the reference; 0 keeps no reference model
    temperature: Rate
    max_completion_length: Count
    rewards: dict[Literal["iou", "format"], Rate] = Field(min_length=1)  # weights
    log_rollouts: bool

    @model_validator(mode="after")
    def _iterations(self) -> Grpo:
        if (self.num_iterations > 1) != (self.epsilon is not None):
            raise ValueError(
                "epsilon: with num_iterations 1 the ratio is exactly 1 and the clip has no effect: null;"
                " with more iterations it is needed, e.g. 0.2"
            )
        for name in ("steps", "save_steps"):
            if getattr(self, name) % self.num_iterations:
                raise ValueError(f"{name}: must be a multiple of num_iterations ({self.num_iterations})")
        _fits(self, self.steps)
        return self


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


class Pretrained(Block):
    """A published or local checkpoint to start from."""

    model: str  # a hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or a local folder
    revision: str | None  # of a hub id the full commit hash, of a folder its digest (a run says which)


class Warmup(Block):
    """Where the base model comes from: `pretrained`, or built from `tiny` and warmed up as `training` says."""

    pretrained: Pretrained | None
    tiny: TinyModel | None
    training: WarmupTraining | None

    @model_validator(mode="after")
    def _one_origin(self) -> Warmup:
        built = (self.tiny is not None, self.training is not None)
        if self.pretrained is not None and any(built):
            raise ValueError("tiny, training: have no meaning beside a pretrained base; set both to null")
        if self.pretrained is None and not all(built):
            raise ValueError("tiny, training: both are needed where no pretrained base is given")
        return self


class WarmupTraining(Optimisation):
    seed: int
    steps: Count
    batch: Count

    @model_validator(mode="after")
    def _in_time(self) -> WarmupTraining:
        _fits(self, self.steps)
        return self


Warmup.model_rebuild()


class Sft(Optimisation):
    """The supervised baseline, on GRPO's prompts: as many as GRPO sees, and as many as cost GRPO's compute."""

    compute_ratio: Count  # steps of the equal-compute run over steps of the equal-samples run


class Evaluate(Block):
    seed: int
    limit: Count | None  # items a source, the first of a seeded shuffle; null for all
    batch: Count
    max_new_tokens: Count
    temperature: Rate  # of the sampled column; the other is greedy


class Report(Block):
    pictures: Count  # hits and misses shown of each model


class Publish(Block):
    name: Name
    store: str  # a folder, file:///… or s3://bucket/prefix


class Params(Block):
    """All of params.yaml."""

    data: Data
    compute: Compute
    world: World | None  # null with another data.root
    validate_: Validate = Field(alias="validate")  # pydantic keeps the plain name for itself
    convert: Convert
    warmup: Warmup
    sft: Sft
    grpo: Grpo
    evaluate: Evaluate
    report: Report
    publish: Publish

    @model_validator(mode="after")
    def _world_of_its_own(self) -> Params:
        if self.data.embedded != (self.world is not None):
            raise ValueError(f"world: belongs to data.root {WORLD_FOLDER}, and only to it (else null)")
        return self

    @model_validator(mode="after")
    def _sft_in_time(self) -> Params:
        _fits(self.sft, self.grpo.steps // self.grpo.num_iterations, "sft.")
        return self

    @model_validator(mode="after")
    def _warmup_sources(self) -> Params:
        named = [name for name, source in self.data.sources.items() if source.role == "warmup"]
        if self.warmup.pretrained is not None and named:
            raise ValueError(f"data.sources.{named[0]}: role warmup has no meaning beside a pretrained base; remove it")
        if self.warmup.pretrained is None and not named:
            raise ValueError("data.sources: no source has role warmup, which the tiny model is supervised on")
        return self


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a params file. Raises ValueError with a line for each fault, naming the key and the mend."""
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        faults = sorted(error.errors(), key=lambda fault: fault["type"] == "missing")  # a mistyped key first
        raise ValueError("\n".join(_explain(path, fault) for fault in faults)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping. Raises ValueError that names the file and the place."""
    if not path.is_file():
        raise ValueError(f"{path}: not found; run from the project's folder")
    try:
        value = YAML(typ="safe").load(path)
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a mapping of blocks is needed")
    return value


def _explain(path: Path, fault: Any) -> str:
    """One sentence for a pydantic fault."""
    where = ".".join(str(part) for part in fault["loc"])
    head = f"{path}: {where}: " if where else f"{path}: "
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _known_keys(), n=1)
        return f"{head}unknown key" + (f"; did you mean {near[0]}?" if near else "; remove it")
    if fault["type"] == "missing":
        return f"{head}missing; params.yaml says everything, add it"
    message = fault["msg"].removeprefix("Value error, ")
    given = "" if isinstance(fault["input"], dict | BaseModel) else f" (it is {fault['input']!r})"
    return f"{head}{message}{given}"


def _known_keys() -> list[str]:
    """Every key any block knows."""
    blocks: list[type[BaseModel]] = [Block]
    for block in blocks:
        blocks.extend(block.__subclasses__())
    return sorted({name.rstrip("_") for block in blocks for name in block.model_fields})
