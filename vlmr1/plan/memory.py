"""Memory of a GRPO run on one device, in bytes, from sizes alone: what is held, and when most of it is held at once.

What autograd keeps for a layer was counted on models of the real classes (`torch.autograd.graph.saved_tensors_hooks`),
a token at a time: for a gated block of width d, feed-forward width f, queries q and keys k, in fp32 6d + q + 4f
numbers, and 2q + 2k for attention itself; under autocast 4d of them stay in four bytes and the rest takes two, with a
copy of each matrix in the half dtype. Optimizer and sharding: ZeRO (arXiv 1910.02054), table 1, with AdamW's moments.
`python -m benchmarks.memory` measures; docs/devices.md has the table.
Left out on purpose: fragmentation, but for `RESERVE`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmr1.plan.shapes import Shape
from vlmr1.settings import Training

PIECE = 2**25  # logits held at once, as vlmr1.grpo.logprobs has it
BUCKET = 500_000_000  # numbers that ZeRO reduces at once, its default; their buffer is laid out whole at any size
LIVE = 1_000_000_000  # weights that ZeRO-3 keeps gathered during a pass, its default
RESERVE = 2e9  # on an accelerator: its driver's context, the processes' buffers, fragmentation; an assumption
SCRATCH = 2e7  # on a CPU: the libraries' scratch space and small blocks, as measured


@dataclass(frozen=True)
class Load:
    """What goes through one device at once."""

    prompts: int  # of its share of a step, which decode together
    together: int  # of them, of one forward and backward pass
    text: int  # tokens of a prompt besides its pictures
    pictures: int  # of a prompt
    visual: int  # tokens of a picture
    group: int  # completions of a prompt
    length: int  # tokens of a completion at most

    @property
    def prompt(self) -> int:
        return self.text + self.pictures * self.visual


@dataclass(frozen=True)
class Place:
    """Where it runs, as far as memory goes."""

    half: bool  # arithmetic in two bytes
    accelerator: bool
    lays_out: bool = False  # whether sampling lays weights out anew (vlmr1.products, on some CPUs)


@dataclass(frozen=True)
class Memory:
    """Bytes a device. `parts` are what a person can change; `phases` when they come together."""

    parts: dict[str, float]
    phases: dict[str, float]
    host: float = 0.0  # bytes a node, beside the devices: what offloading keeps there

    @property
    def total(self) -> float:
        return max(self.phases.values())

    @property
    def peak(self) -> str:
        return max(self.phases, key=lambda name: self.phases[name])


def estimate(shape: Shape, chosen: Training, load: Load, place: Place) -> Memory:
    """What each device holds."""
    compute, trained, beta = chosen.compute, chosen.trained, chosen.grpo.beta
    processes, sharding = compute.processes, compute.deepspeed
    stage = 0 if sharding is None else sharding.stage
    learning = trained_weights(shape, chosen)
    adapters = learning if trained.lora is not None else 0
    wide = 2.0 if sharding is not None and place.half else 4.0  # bytes of a weight as it is held
    split = processes if stage == 3 else 1
    held = _held(shape, chosen, wide) / split + wide * adapters / split
    reference = wide * shape.weights / split if beta > 0 and not adapters else 0.0
    gradients = wide * learning / (processes if stage else 1)
    moments = (12.0 if sharding is not None else 8.0) * learning / (processes if stage else 1)
    if sharding is not None and sharding.offload != "none":
        moments = gradients = 0.0
    if sharding is not None and sharding.offload == "all":
        held = reference = 0.0
    buffer = wide * (BUCKET if place.accelerator else min(BUCKET, learning))  # a CPU has what of it is touched
    kept, passing = 0.0, gradients  # for good, and from the backward pass to the step
    if stage == 3:
        kept, passing = gradients + buffer, 0.0  # laid out at the start
    elif stage == 2:
        passing += 2 * buffer  # one is filled while the other is sent
    elif processes > 1:
        passing += wide * learning  # DDP's own copy of the gradients
    gathered = wide * min(LIVE, shape.weights) if stage == 3 else 0.0
    halves = 2.0 * shape.weights if place.half and sharding is None and compute.quantize is None else 0.0
    language, vision, working = activations(shape, chosen, load, place)
    logits = _logits(shape, load)
    sampling = _sampling(shape, load, place)
    whole = wide * shape.weights if stage == 3 else 0.0  # each process decodes with all of the weights
    passes = -(-load.prompts // load.together)
    keeps = _keeps_reading(chosen, passes)
    reading = (language * load.together * load.prompt / _tokens(chosen, load) + vision) if keeps else 0.0
    laid = 4.0 * shape.linear if place.lays_out and not place.half else 0.0
    base = held + reference + moments + kept + (RESERVE if place.accelerator else SCRATCH)
    first = 0.0 if kept else _first_gradients(shape, chosen, gradients, wide)
    waiting = gradients if passes > 1 and not kept else 0.0  # of the passes before
    lasting = 4.0 * shape.embedding if shape.tied and not adapters and not stage else 0.0
    parts = {
        "weights": held + halves,
        "reference": reference,
        "gradients": kept + passing,
        "optimizer": moments,
        "activations, language": language,
        "activations, vision": vision,
        "of the layer being computed": working,
        "logits": logits,
        "KV cache of the rollout": sampling,
        "weights gathered or laid out for sampling": whole + laid,
    }
    phases = {
        "rollout": base + whole + (0.0 if stage == 3 else halves) + sampling + laid + reading,
        "forward": base + halves + gathered + language + vision + max(logits, working) + max(first, waiting),
        "backward": base + halves + gathered + passing + lasting,
        "step": base + passing,
    }
    return Memory(parts, phases, _host(shape, chosen, learning, wide))


def _host(shape: Shape, chosen: Training, learning: int, wide: float) -> float:
    """What offloading keeps in a node's memory; pinned buffers come on top.

    16 bytes of each weight that learns: four of itself, eight of AdamW's moments, four of the gradient, as DeepSpeed's
    `estimate_zero3_model_states_mem_needs` counts them. With `all` the weights of policy and reference, too.
    """
    compute = chosen.compute
    if compute.deepspeed is None or compute.deepspeed.offload == "none":
        return 0.0
    total = 16.0 * learning
    if compute.deepspeed.offload == "all":
        total += wide * shape.weights * (2 if chosen.grpo.beta > 0 and chosen.trained.lora is None else 1)
    return total / (1 if compute.launch is None else compute.launch.nnodes)


def trained_weights(shape: Shape, chosen: Training) -> int:
    """How many weights learn."""
    trained = chosen.trained
    if trained.lora is not None:
        return shape.lora(trained.lora.r) + (shape.lora_vision(trained.lora.r) if trained.lora.vision else 0)
    tower = 0 if trained.freeze_vision else shape.tower_weights
    return shape.language + tower + (0 if trained.freeze_projector else shape.projector)


def _held(shape: Shape, chosen: Training, wide: float) -> float:
    """The base's weights. NF4 takes 4.127 bits a weight with its constants (QLoRA, 3), int8 8 and a scale a row."""
    bits = chosen.compute.quantize
    if bits is None:
        return wide * shape.weights
    few = 4.127 / 8 if bits == "4bit" else 1.0
    return few * shape.linear + 4.0 * (shape.weights - shape.linear)


def activations(shape: Shape, chosen: Training, load: Load, place: Place) -> tuple[float, float, float]:
    """What a pass's forward part leaves for its backward part, of language model and vision, and what is at work beside
    it: gradients within one block, the block that checkpointing computes again, a frozen tower's block."""
    adapted = chosen.trained.lora is not None
    layer = _layer(shape, chosen, load, place) * load.together
    tokens = _tokens(chosen, load)
    small = 2.0 if place.half else 4.0
    working = 3 * small * tokens * shape.intermediate
    again = chosen.compute.activation_checkpointing
    language = shape.layers * (4.0 * tokens * shape.hidden if again else layer)
    working += layer if again else 0.0
    tower = shape.tower
    patches = tower.merge * load.visual * load.pictures * load.together
    patches *= 1 if shares(chosen) else load.group
    frozen = chosen.trained.freeze_vision or (adapted and not (chosen.trained.lora and chosen.trained.lora.vision))
    d, f = tower.hidden, tower.intermediate
    block = patches * ((7 * d + 4 * f if tower.gated else 6 * d + 2 * f) + 4 * d) * small
    if frozen:
        vision = 0.0  # nothing of it stays
    elif again:
        vision = tower.layers * 4.0 * patches * d
    else:
        vision = tower.layers * block + patches * (tower.inputs + 3 * d) * small
    return language, vision, max(working, block if frozen or again else 0.0)


def _layer(shape: Shape, chosen: Training, load: Load, place: Place) -> float:
    """Of one prompt's group in one layer of the language model."""
    d, f, q, k = shape.hidden, shape.intermediate, shape.asked, shape.kept
    lora = chosen.trained.lora
    small = 2.0 if place.half else 4.0
    said = load.group * max(load.length - 1, 1)
    if shares(chosen):
        tokens, seen = load.prompt + said, load.group * (load.prompt + load.length)
        # Off the CPU keys are repeated for each head that asks.
        keys = 2 * seen * (q if place.accelerator else k) + 2 * load.prompt * k
        mask = load.group * load.length * (load.prompt + load.length)
    else:
        tokens = load.group * (load.prompt + load.length)
        keys, mask = 2 * tokens * k, 0
    norms = 2 * d if lora is not None else 4 * d  # the norms' own weights learn, or not
    if place.half:
        inputs = tokens * (4.0 * norms + small * (5 * d + q + 4 * f))
    else:
        inputs = tokens * 4.0 * (norms + 2 * d + q + 4 * f)
    ranks = tokens * small * 7 * lora.r if lora is not None else 0.0
    return inputs + ranks + small * (2 * tokens * q + keys + mask)


def _tokens(chosen: Training, load: Load) -> int:
    """Tokens of a pass."""
    if shares(chosen):
        return load.together * (load.prompt + load.group * max(load.length - 1, 1))
    return load.together * load.group * (load.prompt + load.length)


def shares(chosen: Training) -> bool:
    """Whether prompts are shared; adapters that drop at random cannot be."""
    return chosen.grpo.share_prefix and not (chosen.trained.lora and chosen.trained.lora.dropout)


def _keeps_reading(chosen: Training, passes: int) -> bool:
    """Whether the rollout's reading of the prompts waits for the backward pass (vlmr1.grpo.trainer)."""
    compute = chosen.compute
    return shares(chosen) and passes == 1 and not compute.activation_checkpointing and compute.deepspeed is None


def _logits(shape: Shape, load: Load) -> float:
    """The pieces in which the head answers, in fp32: logits, their probabilities, and the gradients of both."""
    return 3 * 4.0 * min(PIECE, load.together * load.group * load.length * shape.vocabulary)


def _sampling(shape: Shape, load: Load, place: Place) -> float:
    """Keys and values of prompts (as read, and laid out for decoding) and completions, and a step's distribution."""
    small = 2.0 if place.half else 4.0
    kept = 2 * shape.layers * shape.kept * load.prompts * (2 * load.prompt + load.group * load.length)
    return small * kept + 4 * 4.0 * load.prompts * load.group * shape.vocabulary


def _first_gradients(shape: Shape, chosen: Training, gradients: float, wide: float) -> float:
    """Gradients that exist while nearly all activations do: the head's."""
    return min(gradients, 0.0 if chosen.trained.lora is not None else wide * shape.embedding)
