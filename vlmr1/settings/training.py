"""The training blocks of params.yaml: where models run, what of them is trained, how, and the supervised stages."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlmr1.settings.base import Block, Count, Names, Rate, Share

SMALLEST_VOCABULARY = 600


class DeepSpeed(Block):
    """Sharding by DeepSpeed: optimizer and gradients (ZeRO-2), or weights as well (ZeRO-3)."""

    stage: Literal[2, 3]
    offload: Literal["none", "optimizer", "all"]  # what is kept in the host's memory; all: weights too, ZeRO-3 only

    @model_validator(mode="after")
    def _offload_weights(self) -> DeepSpeed:
        if self.offload == "all" and self.stage != 3:
            raise ValueError("offload: all keeps weights on the host, which needs stage 3")
        return self


class Launch(Block):
    """Several processes: training stages start themselves under torchrun."""

    nnodes: Count
    nproc_per_node: Count
    rendezvous: str | None  # HOST:PORT of one node, which all can reach; null on a single node

    @model_validator(mode="after")
    def _meeting_place(self) -> Launch:
        if self.nnodes > 1 and (self.rendezvous is None or ":" not in self.rendezvous):
            raise ValueError("rendezvous: several nodes meet at one of them; give its HOST:PORT")
        if self.nnodes == 1 and self.rendezvous is not None:
            raise ValueError("rendezvous: a single node meets nobody; set it to null")
        return self

    @property
    def processes(self) -> int:
        return self.nnodes * self.nproc_per_node


class Compute(Block):
    """How models are loaded and run, in every stage."""

    device: Literal["auto", "cuda", "npu", "mps", "cpu"]  # auto: the accelerator that there is, else the CPU
    # Of the arithmetic; the optimizer's weights stay float32, else small steps are lost. auto: what the device has.
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "flash_attention_2"]  # of vision towers, and of models that cannot share prompts
    quantize: Literal["4bit", "8bit"] | None  # the base beneath lora, while it trains
    activation_checkpointing: bool
    prompts_per_device: Count | None  # of one forward and backward pass; null: all of a step's share
    workers: Annotated[int, Field(ge=0)]  # processes that prepare pictures ahead of each training process
    on_out_of_memory: Literal[
        "fail", "halve"
    ]  # what a training's next start does: the same, or half the prompts a pass
    deepspeed: DeepSpeed | None
    launch: Launch | None  # null: one process

    @model_validator(mode="after")
    def _whole_where_quantized(self) -> Compute:
        if self.quantize is not None and self.deepspeed is not None and self.deepspeed.stage == 3:
            raise ValueError("quantize: ZeRO-3 cannot shard quantized weights; set deepspeed to stage 2 or null")
        return self

    @property
    def processes(self) -> int:
        return 1 if self.launch is None else self.launch.processes

    def accumulation(self, prompts: int, key: str) -> int:
        """Passes of each process in a step of so many prompts. Raises ValueError where they do not divide."""
        share, odd = divmod(prompts, self.processes)
        micro = self.prompts_per_device or share
        if odd or share % micro:
            raise ValueError(
                f"{key}: {prompts} prompts do not divide over {self.processes} processes of"
                f" {self.prompts_per_device or 'equally many'} prompts a pass; make it a multiple of"
                f" {self.processes * (self.prompts_per_device or 1)}"
            )
        return share // micro


class Lora(Block):
    """Low-rank adapters by peft; the base's own weights stay as they are."""

    r: Count
    alpha: Rate
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Literal["all-linear"] | Names  # all-linear: every linear layer of the language model's blocks
    vision: bool  # the vision tower's linear layers too


class Trained(Block):
    """What of the base is trained, by the supervised baseline and by GRPO alike."""

    freeze_vision: bool
    freeze_projector: bool
    lora: Lora | None

    @model_validator(mode="after")
    def _one_way(self) -> Trained:
        if self.lora is not None and (self.freeze_vision or self.freeze_projector):
            raise ValueError("freeze_vision, freeze_projector: under lora all of the base is frozen; set both to false")
        return self


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


def fits(settings: Optimisation, steps: int, block: str = "") -> None:
    """Refuse a warm-up or a saving interval that the run is too short for."""
    for name in ("warmup_steps", "save_steps"):
        if getattr(settings, name) > steps:
            raise ValueError(f"{block}{name}: is beyond the run's {steps} steps")


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
    vision_heads: Count
    initializer_range: Rate
    tie_word_embeddings: bool

    @model_validator(mode="after")
    def _buildable(self) -> TinyModel:
        if self.vocabulary < SMALLEST_VOCABULARY:
            raise ValueError(f"vocabulary: at least {SMALLEST_VOCABULARY}: bytes, numbers and marks take so many")
        if self.hidden_size % (2 * self.heads) or self.hidden_size // self.heads < 8:
            raise ValueError("heads: hidden_size must be an even multiple of it, of at least 8 a head")
        if self.vision_hidden_size % (4 * self.vision_heads):
            raise ValueError("vision_heads: vision_hidden_size must be a multiple of four times as many")
        return self


class Pretrained(Block):
    """A published or local checkpoint to start from."""

    model: str  # a hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or a local folder
    revision: str | None  # of a hub id the full commit hash, of a folder its digest; null is refused before a run

    @model_validator(mode="after")
    def _pinned(self) -> Pretrained:
        if self.revision is not None and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.revision) is None:
            raise ValueError(
                f"revision: {self.revision!r} is neither a model's full commit on the hub, of 40 hex digits, nor a"
                " folder's digest, of 64, which a run says"
            )
        return self


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
        fits(self, self.steps)
        return self


Warmup.model_rebuild()


class Sft(Optimisation):
    """The supervised baseline, on GRPO's prompts: as many as GRPO sees, and as many as cost GRPO's compute."""

    compute_ratio: Count  # steps of the equal-compute run over steps of the equal-samples run
