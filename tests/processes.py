"""Training in several processes, for tests: the real command line, whole runs killed, gradients left in files.

`python -m tests.processes JOBS OUT`, by itself or under torchrun, does one training after another: its rows, its
weights and, where wanted, every parameter's gradient at every step are left in files of OUT.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from tests.conftest import ROOT, environment
from vlmr1.files import write_json
from vlmr1.grpo.sampler import PromptSampler
from vlmr1.launch import is_first, leave
from vlmr1.sample import PLACE, Sample, read_jsonl, to_json, write_jsonl
from vlmr1.settings import Launch

# A run of seconds: 4 steps on 2 sets of rollouts, a checkpoint in the middle of each set.
SHORT = (
    "steps=4",
    "save_steps=3",
    "prompts_per_step=4",
    "num_generations=3",
    "num_iterations=2",
    "epsilon=0.2",
    "temperature=1.0",
    "learning_rate=0.0005",
    "max_completion_length=24",
    "max_pixels=12544",
    "compute.dtype=float32",
    "compute.activation_checkpointing=false",
    "compute.prompts_per_device=null",
    "compute.workers=0",
)
PAIR = "compute.launch={nnodes: 1, nproc_per_node: 2, rendezvous: null}"
LORA = "trained.lora={r: 4, alpha: 8.0, dropout: 0.0, target_modules: all-linear, vision: false}"


def zero(stage: int, offload: str = "none") -> str:
    """Sharding by DeepSpeed."""
    return f"compute.deepspeed={{stage: {stage}, offload: {offload}}}"


@dataclass(frozen=True)
class Place:
    """A checkpoint, pictures, and a list of questions about them."""

    base: Path
    images: Path
    data: Path


def lay_out(base: Path, images: Path, samples: Sequence[Sample], data: Path, blind: Collection[int] = ()) -> Place:
    """Write the list; the samples at `blind` lose their picture, and their rows say nothing of one."""
    rows = [to_json(sample) for sample in samples]
    for i in blind:
        del rows[i]["image"], rows[i]["size"]
        rows[i]["conversations"][0]["value"] = rows[i]["conversations"][0]["value"].replace(PLACE, "")
    write_jsonl(data, rows)
    return Place(base, images, data)


def blind_for(pattern: str, samples: int, seed: int = 1, batch: int = 4) -> set[int]:
    """Which samples must go without a picture so that the first steps' prompts read e.g. "ppttttttttpp"."""
    order = list(PromptSampler(samples, batch, samples // batch, seed))
    return {index for index, kind in zip(order, pattern, strict=False) if kind == "t"}


# The command line.


def command(place: Place, output: Path, *sets: str) -> list[str]:
    """`vlmr1 train grpo …`; a later setting of a key stands over an earlier one."""
    words = ["train", "grpo", "--model", place.base, "--data", place.data, "--images", place.images, "--output", output]
    return [*map(str, words), *(word for pair in (*SHORT, *sets) for word in ("-S", pair))]


class Started:
    """A command that runs, with all it says in one file."""

    def __init__(self, arguments: Sequence[str], said: Path, module: str = "vlmr1.cli") -> None:
        self.said = said
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)), stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def finish(self, seconds: float = 600) -> str:
        """What it said; its words are the failure's message."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds:.0f} s:\n{self.said.read_text()[-4000:]}") from None
        assert code == 0, f"exited {code}:\n{self.said.read_text()[-8000:]}"
        return self.said.read_text()

    def kill(self) -> None:
        """SIGKILL for it and all that it started, torchrun first, whose processes no group of its own holds."""
        for process in [psutil.Process(self.process.pid), *self.below()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def below(self) -> list[psutil.Process]:
        """All that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs, ended ones that nobody has asked after apart."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_rows(work: Path, rows: int, started: Started, seconds: float = 120) -> None:
    """Return once a run has logged so many rows, or has ended."""
    path, until = work / "metrics.jsonl", time.monotonic() + seconds
    while time.monotonic() < until and started.process.poll() is None:
        if path.is_file() and path.read_text().count("\n") >= rows:
            return
        time.sleep(0.01)


def last_letters(completion: str, **given: Any) -> float:
    """A reward that even a random model's completions differ in."""
    return sum(map(ord, completion[-3:])) % 8 / 8


# What trainings left.


def rows_of(output: Path) -> list[dict[str, float]]:
    return read_jsonl(output / "logs/metrics.jsonl")


def rollouts_of(output: Path) -> list[str]:
    """The rollouts' lines in an order that does not depend on who sampled them."""
    return sorted((output / "logs/rollouts.jsonl").read_text(encoding="utf-8").splitlines())


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "policy/model.safetensors")


def bytes_of(output: Path) -> dict[str, bytes]:
    """What must be the same after a kill, to the byte."""
    names = ("logs/metrics.jsonl", "logs/rollouts.jsonl", "logs/questions.jsonl", "policy/model.safetensors")
    return {name: (output / name).read_bytes() for name in names}


def apart(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> dict[str, float]:
    """By figure, the largest difference of two runs' rows: absolute below 1, relative above."""
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    found: dict[str, float] = {}
    for one, other in zip(ours, theirs, strict=True):
        for key, value in other.items():
            found[key] = max(found.get(key, 0.0), abs(one[key] - value) / max(1.0, abs(value)))
    return found


def largest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest relative L2 difference of two sets of tensors, and whose it is."""
    assert ours.keys() == theirs.keys()
    return max((float((ours[n] - t).norm() / t.norm().clamp(min=1e-30)), n) for n, t in theirs.items())


# Trainings one after another, in this process or under torchrun.


def do(jobs: Sequence[dict[str, Any]], out: Path) -> None:
    """One training after another."""
    for job in jobs:
        _train(job, out / job["name"])
        unset_hf_deepspeed_config()  # else the next job's model would be sharded before it is read
        gc.collect()


def under_torchrun(jobs: Sequence[dict[str, Any]], out: Path, processes: int = 2, seconds: float = 600) -> None:
    """The same in several processes. Jobs of one sharding share the time that it takes to start them."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "jobs.json", list(jobs))
    torchrun = ["--standalone", "--nproc-per-node", str(processes), "-m", "tests.processes"]
    Started([*torchrun, str(out / "jobs.json"), str(out)], out / "said", "torch.distributed.run").finish(seconds)


def job(name: str, place: Place, *sets: str, **more: Any) -> dict[str, Any]:
    """A job as plain data. `gradients=True` asks for them alone; `dies=n` is Killed after n steps, or at the end.

    `supervised=True` trains on the answers instead.
    """
    return {"name": name, "place": [str(place.base), str(place.images), str(place.data)], "sets": list(sets)} | more


def gradients_of(out: Path, name: str) -> list[dict[str, torch.Tensor]]:
    """By step, each parameter's gradient over all processes."""
    return [load_file(path) for path in sorted((out / name).glob("gradients-*.safetensors"))]


def _train(job: dict[str, Any], out: Path) -> None:
    from vlmr1.grpo.trainer import GrpoTrainer
    from vlmr1.sft import SftTrainer
    from vlmr1.train import defaults, load_jsonl
    from vlmr1.training import VlmTrainer, save_training
    from vlmr1.work import open_work

    base, images, data = map(Path, job["place"])
    chosen = defaults([*SHORT, *job["sets"]])
    if "RANK" in os.environ:
        launch = Launch(nnodes=1, nproc_per_node=int(os.environ["WORLD_SIZE"]), rendezvous=None)
        chosen = chosen.model_copy(update={"compute": chosen.compute.model_copy(update={"launch": launch})})
    if chosen.compute.deepspeed is not None:
        share_small_weights()
    sources, work = [load_jsonl(data, images)], open_work(out / "work", lambda: {})
    if job.get("supervised"):
        order = {"seed": chosen.grpo.seed, "batch": chosen.grpo.prompts_per_step, "steps": chosen.grpo.steps}
        told = (base, sources, chosen.grpo, chosen.trained, chosen.compute, work)
        trainer: VlmTrainer = SftTrainer(*told, max_pixels=chosen.max_pixels, **order)
    else:
        trainer = GrpoTrainer(base, sources, chosen, work)
    if job.get("gradients"):
        trainer.add_callback(Gradients(trainer, out))
    if "dies" in job:
        trainer.add_callback(Death(job["dies"]))
    rows = trainer.run()
    if job.get("gradients"):
        return
    save_training(trainer, rows, {}, out / "policy", out / "logs", out / "metrics.json")


def share_small_weights() -> None:
    """Let ZeRO-3 share out every weight. By itself it keeps small ones whole, which are all that a tiny model has."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    DeepSpeedZeroConfig.model_fields["param_persistence_threshold"].default = 0
    DeepSpeedZeroConfig.model_rebuild(force=True)


class Killed(Exception):
    """What stands for SIGKILL within one process."""


class Death(TrainerCallback):
    """Ends a run after so many steps: in the next one, once its rollouts are there; or when all are done."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.steps:
            raise Killed

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise Killed


class Gradients(TrainerCallback):
    """Writes every trained parameter's gradient between the backward pass and the optimizer's step."""

    def __init__(self, trainer: Any, out: Path) -> None:
        self.trainer, self.out, self.step = trainer, out, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.trainer.is_deepspeed_enabled:
            return
        from deepspeed.utils import safe_get_full_grad

        engine = self.trainer.model_wrapped
        step = engine.step

        def writing(*args: Any, **kwargs: Any) -> Any:
            self._write({n: safe_get_full_grad(p) for n, p in engine.module.named_parameters() if p.requires_grad})
            return step(*args, **kwargs)

        engine.step = writing

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.trainer.is_deepspeed_enabled:
            self._write({n: p.grad for n, p in self.trainer.model.named_parameters() if p.requires_grad})

    def _write(self, gradients: dict[str, torch.Tensor | None]) -> None:
        self.step += 1
        if is_first():
            self.out.mkdir(parents=True, exist_ok=True)
            kept = {name: g.detach().float().clone() for name, g in gradients.items() if g is not None}
            save_file(kept, self.out / f"gradients-{self.step}.safetensors")


if __name__ == "__main__":
    do(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    leave()
    sys.stdout.flush()
    os._exit(0)  # as `vlmr1.launch` has processes end
