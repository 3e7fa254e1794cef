"""How long a GRPO run takes: from the arithmetic it must do and assumed speeds, or from a measured step.

A pass takes 2 FLOPs a weight and token, its backward part twice as many, and once more what checkpointing computes
again (arXiv 2001.08361, 2.1). Sampling is bound by memory: a step of decoding reads every weight, or waits for the
launching of its kernels. Attention's own products and the host's work are left out: take the hours as a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmr1.plan.memory import Load, shares
from vlmr1.plan.shapes import Shape
from vlmr1.settings import Training

SAID = 200  # tokens of a completion on average, as VLM-R1's published runs have (140 to 240)


@dataclass(frozen=True)
class Speed:
    """What a device does, assumed: an A100's peak in bfloat16 and its memory, and the share of them that is reached."""

    flops: float = 312e12
    bandwidth: float = 2.0e12  # bytes a second
    reached: float = 0.35  # of both
    launch: float = 0.03  # seconds a decoding step cannot be under, which launches some thousand kernels


def seconds_a_step(shape: Shape, chosen: Training, load: Load, speed: Speed) -> dict[str, float]:
    """Seconds of an optimiser step's phases, all devices working side by side; completions are of average length."""
    said = min(load.length, SAID)
    copies = 1 if shares(chosen) else load.group
    prompts = load.prompts * copies
    tokens = prompts * load.prompt + load.prompts * load.group * said
    patches = 4 * load.visual * load.pictures * prompts
    body = shape.language - shape.embedding * (1 if shape.tied else 2)
    answers = load.prompts * load.group * said
    forward = 2.0 * (body * tokens + shape.embedding * answers)
    seen = 2.0 * shape.tower_weights * patches
    frozen = chosen.trained.freeze_vision or chosen.trained.lora is not None
    times = 4 if chosen.compute.activation_checkpointing else 3
    read = 2.0 * body * load.prompts * load.prompt + (0.0 if frozen else seen / copies)
    rate = speed.flops * speed.reached
    decode = max(2.0 * shape.weights / (speed.bandwidth * speed.reached), speed.launch)
    reused = 1.0 / chosen.grpo.num_iterations  # sets of rollouts a step
    return {
        "rollout": reused * (read / rate + said * decode),
        "reference": reused * (forward + (0.0 if frozen else seen)) / rate if chosen.grpo.beta > 0 else 0.0,
        "policy": (times * forward + seen * (reused if frozen else times)) / rate,
    }


def hours(shape: Shape, chosen: Training, load: Load, speed: Speed, seconds: float | None = None) -> float:
    """Of the GRPO stage; `seconds` is a measured step's."""
    step = sum(seconds_a_step(shape, chosen, load, speed).values()) if seconds is None else seconds
    return chosen.grpo.steps * step / 3600
