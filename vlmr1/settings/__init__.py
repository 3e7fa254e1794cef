"""params.yaml as frozen typed models: every key known, every value of its type, no option that would be ignored.

There are no defaults here: params.yaml says everything, so that `dvc params diff` tells the whole story.
Read as YAML 1.2, because `dvc exp run -S lr=3e-5` writes `3e-05`, which YAML 1.1 reads as text.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vlmr1.settings.base import Block
from vlmr1.settings.data import Convert, Data, Validate
from vlmr1.settings.grpo import Grpo, Holdout, SyncReference
from vlmr1.settings.results import Asking, Evaluate, Gate, Publish, Report
from vlmr1.settings.rollout import ELSEWHERE, Correction, InProcess, OverVllm
from vlmr1.settings.sources import SourceSpec
from vlmr1.settings.training import (
    Compute,
    DeepSpeed,
    Launch,
    Lora,
    Optimisation,
    Pretrained,
    Sft,
    TinyModel,
    Trained,
    Warmup,
    WarmupTraining,
    fits,
)
from vlmr1.settings.world import (
    WORLD_FOLDER,
    GuiSplit,
    GuiWorld,
    MathSplit,
    MathWorld,
    Objects,
    OvdSplit,
    OvdWorld,
    RecSplit,
    RecWorld,
    World,
)

PARAMS = Path("params.yaml")
__all__ = [
    "ELSEWHERE",
    "PARAMS",
    "WORLD_FOLDER",
    "Asking",
    "Block",
    "Compute",
    "Convert",
    "Correction",
    "Data",
    "DeepSpeed",
    "Evaluate",
    "Gate",
    "Grpo",
    "GuiSplit",
    "GuiWorld",
    "Holdout",
    "InProcess",
    "Launch",
    "Lora",
    "MathSplit",
    "MathWorld",
    "Objects",
    "Optimisation",
    "OvdSplit",
    "OvdWorld",
    "OverVllm",
    "Params",
    "Pretrained",
    "Publish",
    "RecSplit",
    "RecWorld",
    "Report",
    "Sft",
    "SourceSpec",
    "SyncReference",
    "TinyModel",
    "Trained",
    "Training",
    "Validate",
    "Warmup",
    "WarmupTraining",
    "World",
    "explain",
    "load_params",
    "read_yaml",
]


class Training(Block):
    """All that a GRPO run is told, whether by params.yaml or by itself."""

    compute: Compute
    trained: Trained
    grpo: Grpo
    max_pixels: Annotated[int, Field(ge=56 * 56)]  # of a picture as the model sees it

    @model_validator(mode="after")
    def _together(self) -> Training:
        self.compute.accumulation(self.grpo.prompts_per_step, "grpo.prompts_per_step")
        if self.grpo.sync_ref_model is not None and self.compute.deepspeed is not None:
            raise ValueError("grpo.sync_ref_model: no process holds sharded weights whole; set it or deepspeed to null")
        if self.compute.quantize is not None and self.trained.lora is None:
            raise ValueError(
                "compute.quantize: a quantized base is trained by adapters alone; give trained.lora or null"
            )
        if self.grpo.sync_ref_model is not None and self.trained.lora is not None:
            raise ValueError("grpo.sync_ref_model: under lora the reference is the base itself; set it to null")
        return self

    @model_validator(mode="after")
    def _weights_that_can_be_brought(self) -> Training:
        over, lora = self.grpo.over_vllm, self.trained.lora
        if over is None:
            return self
        if over.weights == "adapter" and lora is None:
            raise ValueError("grpo.rollout.weights: adapter needs trained.lora; take checkpoint, or give it")
        if over.weights == "adapter" and lora is not None and lora.vision:
            raise ValueError("grpo.rollout.weights: adapter goes without trained.lora.vision; take checkpoint")
        if over.weights != "adapter" and self.compute.quantize is not None:
            raise ValueError(f"grpo.rollout.weights: {over.weights} needs plain weights; with quantize take adapter")
        return self


class Params(Block):
    """All of params.yaml."""

    data: Data
    compute: Compute
    world: World | None  # null with another data.root
    validate_: Validate = Field(alias="validate")  # pydantic keeps the plain name for itself
    convert: Convert
    warmup: Warmup
    trained: Trained
    sft: Sft
    grpo: Grpo
    evaluate: Evaluate
    report: Report
    publish: Publish
    gate: Gate

    @model_validator(mode="after")
    def _world_of_its_own(self) -> Params:
        if self.data.embedded != (self.world is not None):
            raise ValueError(f"world: belongs to data.root {WORLD_FOLDER}, and only to it (else null)")
        return self

    @model_validator(mode="after")
    def _gated_sources(self) -> Params:
        asked = [name for name, source in self.data.sources.items() if source.role == "evaluate"]
        for name in (*self.gate.improve, *self.gate.keep):
            if name not in asked:
                raise ValueError(f"gate: {name} is no source of role evaluate; there is: {', '.join(asked)}")
        return self

    @model_validator(mode="after")
    def _sft_in_time(self) -> Params:
        fits(self.sft, self.grpo.steps // self.grpo.num_iterations, "sft.")
        return self

    @model_validator(mode="after")
    def _processes(self) -> Params:
        if self.warmup.training is not None:
            self.compute.accumulation(self.warmup.training.batch, "warmup.training.batch")
        return self

    @model_validator(mode="after")
    def _published_whole_or_not(self) -> Params:
        if (self.publish.merge is None) != (self.trained.lora is None):
            raise ValueError("publish.merge: true or false under trained.lora, null without it")
        return self

    @model_validator(mode="after")
    def _training_alone(self) -> Params:
        self.training()  # what a GRPO run by itself refuses, params refuse too
        return self

    def training(self) -> Training:
        """What a GRPO run is told."""
        return Training(compute=self.compute, trained=self.trained, grpo=self.grpo, max_pixels=self.convert.max_pixels)

    @property
    def asked_pixels(self) -> int:
        """Most pixels of a picture in evaluation."""
        return self.evaluate.max_pixels or self.convert.max_pixels

    @model_validator(mode="after")
    def _pictures_as_large_as_asked(self) -> Params:
        if self.convert.store_pictures and self.asked_pixels > self.convert.max_pixels:
            raise ValueError(
                "evaluate.max_pixels: convert.store_pictures shrinks pictures to convert.max_pixels before; set"
                " store_pictures to false"
            )
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
        raise ValueError("\n".join(explain(path, fault) for fault in faults)) from None


def read_yaml(path: Path, reader: YAML | None = None) -> dict[str, Any]:
    """A YAML 1.2 mapping, by a reader that keeps comments where one is given. Raises ValueError naming the place."""
    if not path.is_file():
        raise ValueError(f"{path}: not found; run from the project's folder")
    try:
        value = (reader or YAML(typ="safe", pure=True)).load(path)
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a mapping of blocks is needed")
    return value


def read_value(pair: str, text: str) -> Any:
    """The value of a KEY=VALUE pair. Raises ValueError."""
    try:
        return YAML(typ="safe", pure=True).load(text)  # the compiled loader takes no key such as module:function
    except YAMLError as error:
        raise ValueError(
            f"-S {pair}: the value is not YAML; write it as in params.yaml, e.g. {{accuracy: 1.0}}"
        ) from error


def explain(path: Path, fault: Any) -> str:
    """One sentence for a pydantic fault."""
    parts = list(fault["loc"])
    if parts[:2] == ["data", "sources"]:
        del parts[3:4]  # the format, which tells blocks apart and is no key on the way
    if "rollout" in parts[:-1]:
        del parts[parts.index("rollout") + 1]  # the engine, likewise
    where = ".".join(map(str, parts))
    head = f"{path}: {where}: " if where else f"{path}: "
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(parts[-1]), _known_keys() - {parts[-1]}, n=1, cutoff=0.7)
        return f"{head}unknown key" + (f"; did you mean {near[0]}?" if near else "; remove it")
    if fault["type"] == "missing":
        return f"{head}missing; add it, every key is said"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):  # which block it is, its own key says
        tag, known = fault["ctx"]["discriminator"].strip("'"), fault["ctx"].get("expected_tags", "").replace("'", "")
        return f"{head}{tag}: " + (
            f"{fault['ctx']['tag']!r} is not known; one of {known}" if known else "is missing; add it"
        )
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{head}a block of keys is needed (it is {fault['input']!r})"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = "" if isinstance(fault["input"], dict | BaseModel) else f" (it is {fault['input']!r})"
    return f"{head}{message}{given}"


def _known_keys() -> set[str]:
    """Every key any block knows."""
    blocks: list[type[BaseModel]] = [Block]
    for block in blocks:
        blocks.extend(block.__subclasses__())
    return {name.rstrip("_") for block in blocks for name in block.model_fields}
