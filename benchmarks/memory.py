"""Memory planned against memory measured: small models really trained, each setting in a process of its own.

    python -m benchmarks.memory --json docs/memory.json

A process trains a smaller model first, so that everything is imported, notes what it holds, trains some steps and
tells the most it held since (VmHWM of Linux, on CPUs). Of two processes, which share a step and meet by gloo, the
one that held most counts. glibc is told to give back what is freed: else it keeps an eighth to a third more than is in
use. The table of docs/devices.md is what it prints.
Left out on purpose: accelerators, of which none was to be had; there the same settings can be run by hand and compared
with what a stage records in work/records.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.workload import _status
from vlmr1.files import write_json
from vlmr1.launch import leave, place
from vlmr1.plan.memory import Load, Place, estimate
from vlmr1.plan.shapes import shape_of
from vlmr1.settings import Training
from vlmr1.train import defaults

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144"}  # bytes; larger blocks are the system's own, and go back to it
SIDE = 224  # pixels of the pictures' sides: 64 visual tokens
ASKED = 60  # letters of a question, a token each
SIZES = {
    "vocabulary": 4096, "hidden_size": 256, "intermediate_size": 1376, "layers": 8, "heads": 8, "key_heads": 2,
    "vision_hidden_size": 192, "vision_intermediate_size": 512, "vision_depth": 4, "vision_heads": 4,
}  # fmt: skip
BASE = (
    "steps=2", "save_steps=2", "prompts_per_step=2", "num_generations=8", "max_completion_length=48", "beta=0.0",
    "temperature=1.0", "max_pixels=50176", "compute.workers=0", "compute.dtype=float32", "compute.device=cpu",
    "compute.activation_checkpointing=false", "compute.prompts_per_device=null",
    "rewards={benchmarks.memory:varied: 1.0}",
)  # fmt: skip
LORA = "trained.lora={r: 16, alpha: 32.0, dropout: 0.0, target_modules: all-linear, vision: false}"
TWO = ("compute.launch={nnodes: 1, nproc_per_node: 2, rendezvous: null}", "prompts_per_step=4")  # processes
ZERO_2, ZERO_3 = (f"compute.deepspeed={{stage: {stage}, offload: none}}" for stage in (2, 3))
SETTINGS: dict[str, tuple[str, ...]] = {
    "full": (),
    "prompts not shared": ("share_prefix=false",),
    "G 4": ("num_generations=4",),
    "T 96": ("max_completion_length=96",),
    "four prompts": ("prompts_per_step=4",),
    "KL to a reference": ("beta=0.04",),
    "one prompt a pass": ("prompts_per_step=4", "compute.prompts_per_device=1"),
    "checkpointing": ("compute.activation_checkpointing=true",),
    "checkpointing, not shared": ("compute.activation_checkpointing=true", "share_prefix=false"),
    "frozen vision": ("trained.freeze_vision=true",),
    "LoRA": (LORA,),
    "LoRA, not shared": (LORA, "share_prefix=false"),
    "LoRA, checkpointing": (LORA, "compute.activation_checkpointing=true"),
    "bfloat16": ("compute.dtype=bfloat16",),
    "InternVL": (),
    "DDP": TWO,
    "DDP, LoRA": (*TWO, LORA),
    "ZeRO-2": (*TWO, ZERO_2),
    "ZeRO-2, LoRA": (*TWO, ZERO_2, LORA),
    "ZeRO-3": (*TWO, ZERO_3),
    "ZeRO-3, KL to a reference": (*TWO, ZERO_3, "beta=0.04"),
}
OTHERS = {"InternVL": "internvl"}  # settings of another family than Qwen2.5-VL


def varied(completion: str, sample: Any, answer: Any, pictures: Any) -> float:
    """A reward that differs within any group, so that every group is trained on."""
    return float(len(completion) % 7) + float(sum(map(ord, completion)) % 11)


def write_case(folder: Path, kind: str = "qwen2_5_vl") -> None:
    """A random checkpoint, pictures and a list of questions."""
    from vlmr1.families.random import write_random

    write_random(kind, folder / "base", tie_word_embeddings=True, **SIZES)
    write_random(kind, folder / "warm", tie_word_embeddings=True)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    with (folder / "list.jsonl").open("w") as file:
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"images/{i}.png")
            says = [{"value": "".join(rng.choice(list("abcdefgh"), ASKED))}, {"value": "[1, 2, 30, 40]"}]
            file.write(json.dumps({"image": f"{i}.png", "conversations": says}) + "\n")


def train(folder: Path, out: Path, chosen: Training) -> None:
    """Train in this process; `out` gets the bytes held most beyond what was held before, and tokens of a prompt."""
    import vlmr1.stages  # noqa: F401  (quiet libraries, one thread)
    from vlmr1.grpo.trainer import GrpoTrainer
    from vlmr1.products import slow_mkl
    from vlmr1.train import load_jsonl
    from vlmr1.training import save_training  # noqa: F401  (imported before memory is looked at)

    source = load_jsonl(folder / "list.jsonl", folder / "images")
    once = chosen.model_copy(update={"grpo": chosen.grpo.model_copy(update={"steps": 1, "save_steps": 1})})
    GrpoTrainer(folder / "warm", [source], once, out / "warm").run()  # what is imported late, and caches
    _forget_sharding()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    trainer = GrpoTrainer(folder / "base", [source], chosen, out / "run")
    trainer.run()
    peak, prompt = _status("VmHWM") - before, trainer.prompts.encode(0)
    found = {"peak": peak, "prompt": len(prompt.ids), "visual": prompt.pictures[0].tokens, "lays_out": slow_mkl()}
    write_json(out / f"{place()[0]}.json", found)
    leave()


def _forget_sharding() -> None:
    """Else the next model would be sharded before it is read."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def compare(folder: Path, sets: tuple[str, ...]) -> dict[str, Any]:
    """One setting, measured in processes of its own and planned."""
    chosen = defaults([*BASE, *sets])
    command, processes = [sys.executable], chosen.compute.processes
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as out:
        command += ["-m", "benchmarks.memory", "--one", str(folder), out, *BASE, *sets]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | GIVE_BACK)
        if done.returncode:
            raise RuntimeError(f"{' '.join(sets) or 'full'}: {done.stderr[-2000:]}")
        each = [json.loads(path.read_text()) for path in sorted(Path(out).glob("*.json"))]
    found = max(each, key=lambda one: one["peak"])
    grpo = chosen.grpo
    prompts = grpo.prompts_per_step // processes
    together = prompts // chosen.compute.accumulation(grpo.prompts_per_step, "prompts_per_step")
    load = Load(
        prompts, together, found["prompt"] - found["visual"], 1, found["visual"], grpo.num_generations,
        grpo.max_completion_length,
    )  # fmt: skip
    where = Place(chosen.compute.dtype != "float32", False, found["lays_out"])
    planned = estimate(shape_of(str(folder / "base")), chosen, load, where)
    return {"measured": found["peak"], "planned": planned.total, "peak": planned.peak, "phases": planned.phases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", choices=SETTINGS, help="settings (default: all)")
    parser.add_argument("--json", type=Path, help="where everything goes")
    chosen = parser.parse_args()
    if chosen.one:
        folder, out, *sets = chosen.one
        train(Path(folder), Path(out), defaults(sets))
        return
    rows = {}
    print("| setting | measured, MB | planned, MB | planned / measured |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cases:
        for name in chosen.only or SETTINGS:
            kind = OTHERS.get(name, "qwen2_5_vl")
            case = Path(cases) / kind
            if not case.is_dir():
                case.mkdir()
                write_case(case, kind)
            rows[name] = row = compare(case, SETTINGS[name])
            megabytes = [round(row[key] / 1e6) for key in ("measured", "planned")]
            print(f"| {name} | {megabytes[0]} | {megabytes[1]} | {row['planned'] / row['measured']:.2f} |", flush=True)
    if chosen.json:
        write_json(chosen.json, rows)


if __name__ == "__main__":
    main()
