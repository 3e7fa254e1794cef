"""grpo.rollout of params.yaml: where completions are sampled, in the training's own processes or by vLLM's servers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlmr1.settings.base import Addresses, Block, Rate

# Of a training's settings, what changes nothing of the result: who is asked, and how patiently.
ELSEWHERE = {"grpo": {"rollout": {"servers", "path", "timeout", "patience"}}}


class Correction(Block):
    """The importance correction between the server's log-probs and the trainer's (`vlmr1.grpo.correction`)."""

    level: Literal["token", "sequence", "off"]
    cap: Rate | None  # token: what a ratio is cut to, e.g. 2.0; sequence: beyond it a completion is left out, e.g. 3.0

    @model_validator(mode="after")
    def _capped(self) -> Correction:
        if (self.level == "off") != (self.cap is None):
            raise ValueError("cap: belongs to level token or sequence, and off has none (null)")
        if self.cap is not None and self.cap < 1:
            raise ValueError("cap: at least 1, the ratio of equal log-probs")
        return self


class InProcess(Block):
    """As `rollout: null`."""

    engine: Literal["in_process"]


class OverVllm(Block):
    """vLLM's servers sample, and get the policy's weights before every set of rollouts."""

    engine: Literal["vllm"]
    servers: Addresses  # e.g. [http://localhost:8000/v1]
    model: str | None  # the base's name there; null: the name of its folder
    weights: Literal["adapter", "checkpoint", "nccl"]
    path: str | None  # the folder through which weights go, by one name here and at the servers; null for nccl
    max_staleness: Annotated[int, Field(ge=0, le=1)]  # sets of rollouts that an answer's weights may be behind
    correction: Correction
    overlap: bool  # the next set is sampled while the present one is trained on
    timeout: Rate  # seconds an answer may take, or weights to be loaded
    patience: Rate  # seconds that are waited for a server to come back where none is left

    @model_validator(mode="after")
    def _sound(self) -> OverVllm:
        if self.model == "":
            raise ValueError("model: as which the base is served, or null for the name of its folder")
        if self.weights == "nccl" and self.path is not None:
            raise ValueError("path: nccl goes through no folder; set it to null")
        if self.weights != "nccl" and self.path is None:
            raise ValueError(f"path: is missing, the folder through which {self.weights} goes; give e.g. work/weights")
        if self.overlap and self.max_staleness < 1:
            raise ValueError("max_staleness: overlap samples with weights of one set before; set it to 1")
        return self


Rollouts = Annotated[InProcess | OverVllm, Field(discriminator="engine")]
