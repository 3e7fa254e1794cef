"""What a run needs before it is started: memory a device, what to change where it does not fit, and hours.

    vlmr1 doctor --plan recipes/rec-3b.yaml --memory 80GB --devices 8

Everything comes from params and the model's sizes; neither weights nor data are opened, and no device is asked.
Left out on purpose: supervised training, which needs less (no sampling, no group), and evaluation.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlmr1.plan.hours import SAID, Speed, hours, seconds_a_step
from vlmr1.plan.memory import RESERVE, Load, Memory, Place, estimate
from vlmr1.plan.shapes import Shape, from_tiny, shape_of
from vlmr1.recipes import apply
from vlmr1.settings import PARAMS, Launch, Params, Training, load_params

TEXT = 128  # tokens of a prompt besides its pictures, assumed
FEW = 16  # and of the model built from nothing, to which a question's set phrases are a token each
MEASURES = {"MB": 1e6, "GB": 1e9, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Asked:
    """What the command line says of the devices."""

    memory: float | None = None  # bytes of a device; None: whatever it takes
    devices: int | None = None  # None: as params say
    text: int | None = None  # tokens of a prompt besides its pictures; None: what is assumed
    seconds: float | None = None  # a measured step

    def __post_init__(self) -> None:
        for flag, value in (("memory", self.memory), ("devices", self.devices), ("text", self.text)):
            if value is not None and value < 1:
                raise ValueError(f"--{flag} {value:g}: at least 1")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds-a-step {self.seconds:g}: above 0, and finite")


def bytes_of(said: str) -> float:
    """80GB as a number of bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", said.strip())
    if found is None or found[2].upper() not in MEASURES:
        raise ValueError(f"--memory {said}: write a number and MB, GB, MiB or GiB, e.g. 80GB")
    return float(found[1]) * MEASURES[found[2].upper()]


def params_with(recipe: Path | None, sets: list[str], params: Path = PARAMS) -> Params:
    """params.yaml as it would be with a recipe and KEY=VALUE pairs over it; the file stays as it is."""
    if recipe is None and not sets:
        return load_params(params)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / params.name
        if not params.is_file():
            raise ValueError(f"no {params} here; run from the project's folder")
        shutil.copy(params, draft)
        try:
            apply(recipe, sets, draft)
        except ValueError as error:
            raise ValueError(str(error).replace(str(draft), str(params))) from None
        return load_params(draft)


@dataclass(frozen=True)
class Plan:
    """A run's sizes, ready to be asked about."""

    shape: Shape
    chosen: Training
    load: Load
    place: Place

    @property
    def memory(self) -> Memory:
        return estimate(self.shape, self.chosen, self.load, self.place)


def plan_of(params: Params, asked: Asked) -> Plan:
    """Raises ValueError, naming the mend, for a model of unknown sizes or a step that does not divide."""
    origin = params.warmup
    if origin.pretrained is not None:
        shape = shape_of(origin.pretrained.model)
    else:
        assert origin.tiny is not None  # settings.Warmup holds this
        shape = from_tiny(origin.tiny)
    chosen = params.training()
    if chosen.grpo.share_prefix and shape.breaks is not None:  # as vlmr1.families refuses the run
        raise ValueError(f"grpo.share_prefix: {shape.breaks}; add -S grpo.share_prefix=false")
    if asked.devices is not None and asked.devices != chosen.compute.processes:
        chosen = _on(chosen, asked.devices)
    if chosen.compute.deepspeed is not None and chosen.compute.launch is None:  # as vlmr1.launch refuses the run
        raise ValueError(
            "compute.deepspeed: shards over processes, and there is one; add -S compute.deepspeed=null, or take more"
        )
    if chosen.compute.deepspeed is not None and chosen.compute.dtype == "float16":  # as vlmr1.device refuses it
        raise ValueError(
            "compute.dtype: float16 needs the trainer's own loss scaling; add -S compute.deepspeed=null, or"
            " -S compute.dtype=bfloat16"
        )
    pictures = 2 if any(s.format == "gui" for s in params.data.sources.values() if s.role == "train") else 1
    half = (chosen.compute.dtype != "float32" and origin.pretrained is not None) or chosen.compute.dtype.endswith("16")
    accelerator = origin.pretrained is not None and chosen.compute.device != "cpu"
    text = asked.text or (FEW if origin.pretrained is None else TEXT)
    return Plan(shape, chosen, _load(shape, chosen, text, pictures), Place(half, accelerator))


def _on(chosen: Training, devices: int) -> Training:
    """The same run on so many devices of one node. Raises ValueError where its step does not divide."""
    launch = None if devices == 1 else Launch(nnodes=1, nproc_per_node=devices, rendezvous=None)
    return _changed(chosen, "compute", launch=launch)


def _changed(chosen: Training, block: str, **what: Any) -> Training:
    values = chosen.model_dump()
    values[block] |= {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in what.items()}
    try:
        return Training.model_validate(values)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _load(shape: Shape, chosen: Training, text: int, pictures: int) -> Load:
    grpo, visual = chosen.grpo, shape.visual(chosen.max_pixels)
    prompts = grpo.prompts_per_step // chosen.compute.processes
    together = prompts // chosen.compute.accumulation(grpo.prompts_per_step, "grpo.prompts_per_step")
    if grpo.max_prompt_length is not None:
        text = min(text, max(1, grpo.max_prompt_length - pictures * visual))
    return Load(prompts, together, text, pictures, visual, grpo.num_generations, grpo.max_completion_length)


def changes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """What may be changed to need less, what leaves the learning as it is first; those already so are left out."""
    chosen = plan.chosen
    compute, trained = chosen.compute, chosen.trained

    def to(block: str, **what: Any) -> Plan:
        new = _changed(chosen, block, **what)
        return Plan(plan.shape, new, _load(plan.shape, new, plan.load.text, plan.load.pictures), plan.place)

    if not chosen.grpo.share_prefix and plan.shape.breaks is None:
        yield "grpo.share_prefix=true", to("grpo", share_prefix=True)
    if not compute.activation_checkpointing:
        yield "compute.activation_checkpointing=true", to("compute", activation_checkpointing=True)
    if plan.load.together > 1:
        yield "compute.prompts_per_device=1", to("compute", prompts_per_device=1)
    if compute.launch is not None and chosen.grpo.sync_ref_model is None and compute.dtype != "float16":
        present = (0, "none") if compute.deepspeed is None else (compute.deepspeed.stage, compute.deepspeed.offload)
        for stage, offload in ((2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"), (3, "all")):
            if (stage, offload) > present and not (stage == 3 and compute.quantize):
                sharded = {"stage": stage, "offload": offload}
                said = f'"compute.deepspeed={{stage: {stage}, offload: {offload}}}"'
                yield said, to("compute", deepspeed=sharded)
    if trained.lora is not None and trained.lora.dropout > 0:  # which keeps prompts apart
        yield "trained.lora.dropout=0.0", to("trained", lora=trained.lora.model_copy(update={"dropout": 0.0}))
    quantized: dict[str, Any] = {"quantize": "4bit"}
    few = "compute.quantize=4bit"
    if compute.deepspeed is not None and compute.deepspeed.stage == 3:  # which shards no quantized weights
        offload = "none" if compute.deepspeed.offload == "none" else "optimizer"
        quantized["deepspeed"] = {"stage": 2, "offload": offload}
        few += f' -S "compute.deepspeed={{stage: 2, offload: {offload}}}"'
    if trained.lora is None:
        if not trained.freeze_vision:
            yield "trained.freeze_vision=true", to("trained", freeze_vision=True)
        lora = {"r": 64, "alpha": 128.0, "dropout": 0.0, "target_modules": "all-linear", "vision": False}
        if chosen.grpo.sync_ref_model is None:
            said = '"trained.lora={r: 64, alpha: 128.0, dropout: 0.0, target_modules: all-linear, vision: false}"'
            for part in ("vision", "projector"):  # the base is frozen then, whole
                said += f" -S trained.freeze_{part}=false" * getattr(trained, f"freeze_{part}")
            said += " -S publish.merge=true"  # belongs to adapters
            adapted = to("trained", lora=lora, freeze_vision=False, freeze_projector=False)
            yield said, adapted
            if "deepspeed" in quantized:  # adapters alone spare nothing of the weights gathered for sampling
                yield f"{said} -S {few}", replace(adapted, chosen=_changed(adapted.chosen, "compute", **quantized))
    elif compute.quantize is None:
        yield few, to("compute", **quantized)
    half = chosen.grpo.max_completion_length // 2
    yield f"grpo.max_completion_length={half}", to("grpo", max_completion_length=half)
    less = chosen.model_copy(update={"max_pixels": max(56 * 56, chosen.max_pixels // 2)})
    smaller = Plan(plan.shape, less, _load(plan.shape, less, plan.load.text, plan.load.pictures), plan.place)
    yield f"convert.max_pixels={less.max_pixels}", smaller


def say(plan: Plan, asked: Asked) -> tuple[str, bool]:
    """The plan in words, and whether it fits."""
    memory, load, chosen, speed = plan.memory, plan.load, plan.chosen, Speed()
    unit, name = (1e9, "GB") if memory.total > 1e9 else (1e6, "MB")
    where = f"{chosen.compute.processes} device{'s' * (chosen.compute.processes > 1)}"
    lines = [
        f"model: {plan.shape.weights / 1e6:,.1f} M weights, {plan.shape.tower_weights / 1e6:,.1f} M of them vision",
        f"a pass: {load.together} of {load.prompts} prompts a device on {where}, each {load.prompt} tokens"
        f" ({load.pictures} x {load.visual} visual, {load.text} of text assumed), {load.group} completions of at most"
        f" {load.length}",
        f"memory a device, {name}:",
        *(f"  {size / unit:8.2f}  {part}" for part, size in memory.parts.items() if size),
        *([f"  {RESERVE / unit:8.2f}  driver, processes' buffers, fragmentation (assumed)"] * plan.place.accelerator),
        *_instead(plan, unit),
        "most at once: "
        + ", ".join(f"{phase} {size / unit:.1f}" for phase, size in memory.phases.items())
        + f"; {memory.total / unit:.1f} {name} in all",
    ]
    if memory.host:
        lines.append(
            f"host memory a node: {memory.host / unit:.0f} {name} of what is offloaded, besides pinned buffers and the"
            " processes' own"
        )
    fits = asked.memory is None or memory.total <= asked.memory
    if asked.memory is not None:
        room = f"{asked.memory / 1e9:g} GB" if asked.memory >= 1e9 else f"{asked.memory / 1e6:g} MB"
        lines.append(f"{'fits' if fits else 'does NOT fit'} {room}")
    if not fits and asked.memory is not None:
        lines += _suggestions(plan, asked.memory, unit, name)
    took = hours(plan.shape, chosen, load, speed, asked.seconds)
    if asked.seconds is not None:
        lines.append(f"hours of grpo: {took:.1f} ({chosen.grpo.steps} steps of {asked.seconds:g} s, as given)")
    elif plan.place.accelerator:
        step = seconds_a_step(plan.shape, chosen, load, speed)
        lines.append(
            f"hours of grpo: {took:.1f} ({chosen.grpo.steps} steps of {sum(step.values()):.1f} s: "
            + ", ".join(f"{name} {seconds:.1f}" for name, seconds in step.items() if seconds)
            + f"; assumed: {speed.flops / 1e12:.0f} TFLOP/s and {speed.bandwidth / 1e12:g} TB/s a device,"
            f" {speed.reached:.0%} of them reached, completions of {min(load.length, SAID)} tokens; --seconds-a-step"
            " takes a measured one)"
        )
    else:
        lines.append("hours of grpo: give --seconds-a-step, a measured one; speeds of CPUs are not assumed")
    return "\n".join(lines), fits


def _instead(plan: Plan, unit: float) -> list[str]:
    """What activations would take with prompts shared where they are not, and the other way round."""
    if plan.shape.breaks is not None:
        return []
    grpo, lora = plan.chosen.grpo, plan.chosen.trained.lora
    if grpo.share_prefix and lora is not None and lora.dropout > 0:  # which keeps them apart
        said = "trained.lora.dropout 0.0"
        changed = _changed(plan.chosen, "trained", lora=lora.model_copy(update={"dropout": 0.0}))
    else:
        said = f"share_prefix {str(not grpo.share_prefix).lower()}"
        changed = _changed(plan.chosen, "grpo", share_prefix=not grpo.share_prefix)
    other = Plan(plan.shape, changed, plan.load, plan.place)
    takes = sum(size for name, size in other.memory.parts.items() if name.startswith("activations"))
    return [f"  {takes / unit:8.2f}  instead, activations with {said}"]


def _suggestions(plan: Plan, capacity: float, unit: float, name: str) -> list[str]:
    """What to change: each by itself with its saving, and where none of them fits, several together."""
    now, lines, enough = plan.memory.total, ["what to change, each by itself (-S KEY=VALUE):"], False
    for said, other in changes(plan):
        total = other.memory.total
        enough |= total <= capacity
        if total < 0.99 * now:
            mark = "fits" if total <= capacity else "still too much"
            lines.append(f"  {said}: saves {(now - total) / unit:.1f} {name}, {total / unit:.1f} in all, {mark}")
    if len(lines) == 1:
        return [*lines, "  nothing here does; take more devices, or a smaller model"]
    if not enough:
        sets, total = _together(plan, capacity)
        mark = "fits" if total <= capacity else "still too much: take more devices, or a smaller model"
        lines.append(f"together, -S {' -S '.join(sets)}: {total / unit:.1f} {name} in all, {mark}")
    return lines


def _together(plan: Plan, capacity: float) -> tuple[list[str], float]:
    """Changes on top of each other, what saves most first and no key twice, until it fits; and what it takes then."""
    taken: dict[str, str] = {}
    while plan.memory.total > capacity:
        open_ = [(said, other) for said, other in changes(plan) if _key(said) not in taken]
        best = min(open_, key=lambda change: change[1].memory.total, default=None)
        if best is None or best[1].memory.total >= 0.99 * plan.memory.total:
            break
        plan = best[1]
        for pair in best[0].split(" -S "):  # what is said later of a key holds
            taken.pop(_key(pair), None)
            taken[_key(pair)] = pair
    return list(taken.values()), plan.memory.total


def _key(said: str) -> str:
    return said.strip('"').partition("=")[0]
