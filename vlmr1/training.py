"""What supervised training and GRPO share: one `transformers.Trainer`, resumable, repeatable, that shows itself.

Half-finished work lives in `work/NAME/` (`vlmr1.work`): the Trainer's checkpoints and `metrics.jsonl`, append-only,
which anybody may tail. Training goes on only from a checkpoint that was written whole. A finished run's results leave
the folder in one rename.
Left out on purpose: evaluation during training, several processes, DeepSpeed.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from vlmr1.device import pick_device
from vlmr1.families.qwen_vl import Batch, Prompt, QwenVL
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.grpo.sampler import PromptSampler
from vlmr1.sample import Sample, Source, write_jsonl
from vlmr1.settings import Compute, Optimisation
from vlmr1.tasks import TASKS

WHOLE = "whole.json"  # written into a checkpoint last; one without it was interrupted


class Prompts(Dataset[tuple[Sample, Prompt]]):
    """The samples of several sources, each with its picture and question encoded when asked for."""

    def __init__(self, sources: Sequence[Source], family: QwenVL) -> None:
        self.items = [(source, sample) for source in sources for sample in source.samples]
        self.family = family

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Sample, Prompt]:
        source, sample = self.items[index]
        with Image.open(source.picture(sample)) as picture:
            return sample, self.family.encode(TASKS[sample.task].prompt(sample), picture)


class VlmTrainer(Trainer):
    """A Trainer over prompts in a fixed order. Subclasses say what the loss of a list of prompts is."""

    def __init__(
        self,
        model: Any,
        family: QwenVL,
        sources: Sequence[Source],
        settings: Optimisation,
        compute: Compute,
        work: Path,
        *,
        seed: int,
        batch: int,
        steps: int,
        repeats: int = 1,
    ) -> None:
        self.family, self.work = family, work
        data = Prompts(sources, family)
        self.order = PromptSampler(len(data), batch, steps, seed, repeats)
        self.noted: list[dict[str, float]] = []  # figures of the steps since the last log
        arguments = TrainingArguments(
            output_dir=str(work),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            lr_scheduler_kwargs=_schedule(settings, steps),
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            adam_beta2=settings.adam_beta2,
            max_grad_norm=settings.max_grad_norm,
            logging_steps=1,
            logging_nan_inf_filter=False,  # a NaN must be seen
            save_steps=settings.save_steps,
            save_total_limit=2,
            seed=seed,
            bf16=compute.dtype == "bfloat16",
            activation_checkpointing=compute.activation_checkpointing,
            use_cpu=pick_device().type == "cpu",
            remove_unused_columns=False,
            disable_tqdm=True,  # WatchedRun shows the run
            report_to="none",
        )
        if arguments.world_size > 1:
            raise ValueError("training over several processes is not supported yet; start one process")
        arguments._n_gpu = min(1, arguments.n_gpu)  # else the Trainer would split our lists over every GPU it sees
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=lambda rows: {"samples": [s for s, _ in rows], "prompts": [p for _, p in rows]},
            callbacks=[WatchedRun(work)],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False  # the loss is a mean already

    def _get_train_sampler(self, train_dataset: Any = None) -> PromptSampler:
        return self.order

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load weights as `from_pretrained` does: a VLM's file names its parameters otherwise than the module does.

        The Trainer's own way matches names without that translation, finds none, and goes on with what it had.
        """
        saved = self.family.load_model(Path(resume_from_checkpoint), self.model.dtype)
        self.model.load_state_dict(saved.state_dict(), strict=True)

    def batch(self, model: Any, prompts: Sequence[Prompt]) -> Batch:
        return self.family.batch(self.accelerator.unwrap_model(model), prompts).to(self.args.device)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; try a lower learning_rate;"
                f" the last good checkpoint is in {self.work}"
            )
        return loss

    def note(self, **figures: float) -> None:
        """Remember a step's figures; their means are logged with the loss."""
        self.noted.append(figures)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.noted:
            means = {key: sum(n[key] for n in self.noted) / len(self.noted) for key in self.noted[0]}
            logs, self.noted = {**logs, **means}, []
        super().log(logs)  # without start_time: speed is by nature different each run and is kept elsewhere

    def forget_after(self, step: int) -> None:
        """Drop what an interrupted run wrote beyond the step that this one starts from."""

    def run(self) -> list[dict[str, float]]:
        """Train to the end, from the last whole checkpoint if there is one. Returns the logged rows, a step each."""
        checkpoint = last_whole_checkpoint(self.work)
        self.forget_after(0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]))
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return logged_rows(self.state)


def _schedule(settings: Optimisation, steps: int) -> dict[str, Any]:
    """transformers' arguments of the learning rate's schedule."""
    if settings.decay_share is None:
        return {}
    return {"num_decay_steps": round(settings.decay_share * steps), "decay_type": "linear"}


class WatchedRun(TrainerCallback):
    """Keeps `metrics.jsonl` in step with training, shows a bar or plain lines, marks checkpoints that are whole."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first = time.monotonic(), state.global_step
        rows = logged_rows(state)  # what a resumed run had logged
        (self.work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=self.first, desc=self.work.name, dynamic_ncols=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        row = _row(state.log_history[-1], state)
        with (self.work / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = {key: f"{row[key]:.3f}" for key in ("loss", "reward", "completion_length", "grad_norm") if key in row}
        done = state.global_step
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(1)
        elif done % max(1, state.max_steps // 20) == 0 or done == state.max_steps:
            left = (time.monotonic() - self.started) / max(1, done - self.first) * (state.max_steps - done)
            figures = "  ".join(f"{key} {value}" for key, value in shown.items())
            print(f"{self.work.name} step {done}/{state.max_steps}  {figures}  {left:.0f} s left", flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write_json(self.work / f"checkpoint-{state.global_step}" / WHOLE, {"step": state.global_step})


def logged_rows(state: Any) -> list[dict[str, float]]:
    """What was logged at each step, keys in one order, whether the Trainer's state was lived or loaded."""
    return [_row(row, state) for row in state.log_history if "loss" in row]


def _row(row: dict[str, float], state: Any) -> dict[str, float]:
    return {"step": row["step"], "steps": state.max_steps} | {key: row[key] for key in sorted(row) if key != "step"}


def save_training(
    name: str,
    trainer: VlmTrainer,
    rows: list[dict[str, float]],
    checkpoint: Path,
    figures: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Leave a training's results: the checkpoint, logs/NAME with every logged row, and metrics/NAME.json last."""
    with whole_folder(checkpoint) as folder:
        trainer.family.save(trainer.accelerator.unwrap_model(trainer.model), folder)
        for file_name, value in (extra or {}).items():
            write_json(folder / file_name, value)
    with whole_folder(Path("logs") / name) as folder:
        write_jsonl(folder / "metrics.jsonl", rows)
        rollouts = trainer.work / "rollouts.jsonl"
        if rollouts.is_file():
            (folder / "rollouts.jsonl").write_bytes(rollouts.read_bytes())
        with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    summary = {"steps": trainer.state.max_steps, "final_loss": rows[-1]["loss"], **figures}
    write_json(Path("metrics") / f"{name}.json", rounded(summary))
    shutil.rmtree(trainer.work)


def last_whole_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written whole; interrupted ones are removed so that none is mistaken for it."""
    whole: dict[int, Path] = {}
    for folder in work.glob("checkpoint-*"):
        if (folder / WHOLE).is_file():
            whole[int(folder.name.rpartition("-")[2])] = folder
        else:
            shutil.rmtree(folder)
    if not whole:
        return None
    step = max(whole)
    print(f"{work.name}: continuing after step {step}", flush=True)
    return whole[step]
