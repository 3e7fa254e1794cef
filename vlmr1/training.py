"""What supervised training and GRPO share: one `transformers.Trainer`, resumable, repeatable, on one process or many.

Half-finished work lives in `work/NAME/` (`vlmr1.work`): the Trainer's checkpoints and `metrics.jsonl`. Training goes
on only from a checkpoint that was written whole. A finished run's results leave the folder in one rename.
A step's prompts are the same whatever the number of processes, which share them; losses are normalised by what the
whole step holds, so that they do not depend on it either.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from vlmr1.arguments import training_arguments
from vlmr1.device import settle
from vlmr1.families import load_family
from vlmr1.families.base import Prompt
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.sampler import PromptSampler
from vlmr1.interruptions import StopsInOrder, fitting, in_order
from vlmr1.launch import is_first
from vlmr1.prompts import Prompts, UnreadablePicture
from vlmr1.sample import Source, write_jsonl
from vlmr1.settings import Compute, Optimisation, Trained
from vlmr1.unpickled import know_deepspeed, plain
from vlmr1.watching import JOURNAL, WatchedRun, label, logged_rows
from vlmr1.work import excuse

WHOLE = "whole.json"  # written into a checkpoint last; one without it was interrupted


class VlmTrainer(Trainer):
    """A Trainer over prompts in a fixed order. Subclasses say what the loss of a list of prompts is."""

    def __init__(
        self,
        checkpoint: Path,
        sources: Sequence[Source],
        settings: Optimisation,
        trained: Trained,
        compute: Compute,
        work: Path,
        *,
        max_pixels: int,
        seed: int,
        batch: int,
        steps: int,
        repeats: int = 1,
        temperature: float = 1.0,
        share: bool | None = None,
        longest: int | None = None,
        keep_out: int = 0,
    ) -> None:
        """`batch` prompts a step on all processes together; `keep_out` of them are left out of training.

        `share` says whether completions share their prompt: None where that is exact. Raises ValueError for true where
        it never is.
        """
        self.asked_for, compute = compute, fitting(compute, work)
        self.work, self.settings, self.compute = work, settings, compute
        self.device = settle(compute)
        self.family, self.max_pixels = load_family(checkpoint, max_pixels), max_pixels
        self.family.check_sharing(share)
        share = share is not False and self.family.breaks is None
        self.prompts = Prompts(sources, self.family, longest)
        if self.prompts.dropped and len(self.prompts) < batch + keep_out:
            raise ValueError(
                f"max_prompt_length: {self.prompts.dropped} of {self.prompts.dropped + len(self.prompts)} prompts have"
                f" more than {longest} tokens, and the rest cannot fill a step; raise it"
            )
        self.order = PromptSampler(len(self.prompts), batch, steps, seed, repeats, keep_out)
        self.noted: dict[str, list[float]] = {}  # figures of the steps since the last log
        # Before the model is loaded: under ZeRO-3 its weights are shared out as they are read.
        arguments = training_arguments(settings, compute, self.device, work, seed=seed, batch=batch, steps=steps)
        # A tiny model that is warmed up is trained whole, whatever lies beneath adapters later.
        self.bits = compute.quantize if trained.lora is not None else None
        model = self._load(checkpoint)
        # The renamings that the checkpoint needed, which saving reverses. Under ZeRO-3 all that are known are noted.
        model._weight_conversions = [one for one in getattr(model, "_weight_conversions", None) or [] if one.was_used()]
        drops = trained.lora is not None and trained.lora.dropout > 0
        self.breaks = prepare(model, self.family, share and not drops, self.device.attention)
        if drops and self.breaks is None:
            self.breaks = "the adapter drops at random, once for a prompt that several completions would share"
        self.checkpoint, self.lora = checkpoint, trained.lora
        if trained.lora is not None or trained.freeze_vision or trained.freeze_projector:
            from vlmr1.adapters import add_lora, freeze  # peft, wanted only here

            torch.manual_seed(seed)  # an adapter begins at random
            freeze(model, self.family, trained.freeze_vision, trained.freeze_projector)
            model = model if trained.lora is None else add_lora(model, self.family, trained.lora)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=self.prompts,
            data_collator=lambda items: {"items": items},
            callbacks=[WatchedRun(work)] if is_first() else [],
        )
        self.add_callback(stops := StopsInOrder(self.over_processes))
        self.stops = stops
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False  # the losses are scaled here
        if share and self.breaks is not None and is_first():
            print(f"{label(work)}: prompts are not shared, because {self.breaks}; the naive way is used", flush=True)
        self.bare = model if trained.lora is None else model.get_base_model()
        shared = share and self.breaks is None
        self.policy = Policy(
            model, self.bare, self.family, temperature, shared, self.args.device, self.accelerator.autocast
        )
        self.frozen_tower = shared and self.family.frozen(self.model, "tower")
        still = self.frozen_tower and self.family.frozen(self.model, "projector")
        sharded = compute.deepspeed is not None and compute.deepspeed.stage == 3  # modules meet at each call
        self.blank = None if still and not sharded else self._blank()
        if self.prompts.dropped and is_first():
            print(
                f"{label(work)}: {self.prompts.dropped} prompts of more than {longest} tokens are left out", flush=True
            )

    def _load(self, checkpoint: Path) -> Any:
        """The weights that training starts from."""
        if self.bits is None:
            return self.family.load_model(checkpoint, torch.float32)
        from vlmr1.quantized import load_quantized  # peft, wanted only here

        return load_quantized(self.family, checkpoint, self.bits, self.device)

    def _blank(self) -> Prompt:
        """A prompt with a picture of nothing, for passes that have no other.

        Processes call tower and projector together, or wait for each other forever; and the optimizer sees a gradient
        in every step, zero if need be, however prompts fall to the processes.
        """
        side = 2 * self.family.smallest_side
        return self.family.encode("", [Image.new("RGB", (side, side))], ["blank"])

    def companion(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The blank prompt, where vision must be called and these prompts have no picture."""
        return [self.blank] if self.blank is not None and not any(p.pictures for p in prompts) else []

    @property
    def share_of_loss(self) -> int:
        """What a process's part of a step's loss is multiplied by, because the Trainer will take means of the parts."""
        return self.args.world_size * self.current_gradient_accumulation_steps

    def _get_train_sampler(self, train_dataset: Any = None) -> PromptSampler:
        return self.order

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Its workers are in groups of their own: what stops this process in order would kill them before."""
        loader = super().get_train_dataloader()
        beneath = getattr(loader, "base_dataloader", loader)  # accelerate's has it within
        seeded = beneath.worker_init_fn

        def begin(number: int) -> None:
            os.setpgrp()
            if seeded is not None:
                seeded(number)

        beneath.worker_init_fn = begin
        return loader

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The coming step's batches. Raises UnreadablePicture, before anything of the step is done."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            for _, prompt in batch["items"]:
                if isinstance(prompt, UnreadablePicture):
                    excuse(self.work, {prompt.path, *self.prompts.unreadable()})
                    raise prompt
        return batches, count

    def encode(self, index: int) -> Prompt:
        """A sample's prompt. Raises UnreadablePicture, having noted that the picture may be mended."""
        try:
            return self.prompts.encode(index)
        except UnreadablePicture as error:
            excuse(self.work, {error.path, *self.prompts.unreadable()})
            raise

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load weights as `from_pretrained` does: a VLM's file names its parameters otherwise than the module does.

        The Trainer's own way matches names without that translation, finds none, and goes on with what it had.
        """
        if self.lora is not None:
            from vlmr1.adapters import load_adapter_weights

            load_adapter_weights(self.model, Path(resume_from_checkpoint))
            return
        saved = self.family.load_model(Path(resume_from_checkpoint), self.model.dtype)
        self.model.load_state_dict(saved.state_dict(), strict=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint, what a subclass adds, and when every process has written, the mark."""
        super()._save_checkpoint(model, trial)
        folder = self.work / f"checkpoint-{self.state.global_step}"
        self.save_more(folder)
        self.accelerator.wait_for_everyone()
        if is_first():
            write_json(folder / WHOLE, {"step": self.state.global_step})

    def save_more(self, folder: Path) -> None:
        """Add to a checkpoint what a subclass needs to go on; called on every process."""

    def load_more(self, folder: Path) -> None:
        """The reverse of `save_more`."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.policy.called = args[0]
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            self.stop(f"the loss is {loss.item()}")
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradients' norm, looked at before the optimizer uses them.

        In float16 the loss scaler skips a step whose scaled gradients overflow, and tries a smaller scale.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(float(norm)) and not self.args.fp16:
            self.stop(f"the gradients' norm is {float(norm)}")
        return norm

    def stop(self, what: str, indices: Sequence[int] | None = None) -> None:
        """Refuse to go on with numbers that are none; the batch is kept for inspection."""
        path = self.work / f"offending-{self.args.process_index}.json"  # a NaN soon is everyone's: each keeps its own
        write_json(path, {"step": self.state.global_step + 1, "what": what, "batch": self.describe_batch(indices)})
        raise FloatingPointError(
            f"{what} at step {self.state.global_step + 1}; the batch is in {path}, the last good checkpoint in"
            f" {self.work}; try a lower learning_rate"
        )

    def describe_batch(self, indices: Sequence[int] | None) -> list[dict[str, Any]]:
        """The present batch, or these samples, as plain data."""
        return [self.describe(index) for index in indices or []]

    def describe(self, index: int) -> dict[str, Any]:
        """A sample as a person wants it named."""
        sample = self.prompts.sample(index)
        return {"source": sample.source, "id": sample.id, "images": list(sample.images), "problem": sample.problem}

    def num_parameters(self) -> int:
        """Weights of the whole model, trained or not, sharded or not."""
        if self.bits is not None:
            return self.bare.num_parameters()
        return sum(getattr(p, "ds_numel", p.numel()) for p in self.bare.parameters())

    def note(self, **figures: float) -> None:
        """Remember a step's figures; their means are logged with the loss."""
        for key, value in figures.items():
            self.noted.setdefault(key, []).append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.noted:
            logs = {**logs, **{key: sum(values) / len(values) for key, values in self.noted.items()}}
            self.noted = {}
        super().log(logs)  # without start_time: speed is by nature different each run and is kept elsewhere

    def over_processes(self, *values: float) -> list[float]:
        """Sums of plain numbers over all processes."""
        if self.args.world_size == 1:
            return list(values)
        summed = self.accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=self.args.device), "sum")
        return summed.tolist()

    def forget_after(self, step: int) -> None:
        """Drop what an interrupted run wrote beyond the step that this one starts from."""

    def run(self) -> list[dict[str, float]]:
        """Train to the end, from the last whole checkpoint if there is one. Returns the logged rows, a step each.

        What may end it before is told by `vlmr1.interruptions`.
        """
        checkpoint = last_whole_checkpoint(self.work)
        if is_first():
            self.forget_after(0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]))
        if checkpoint is not None:
            self.load_more(checkpoint)
        if self.is_deepspeed_enabled:
            know_deepspeed()
        try:
            with in_order(self), plain(checkpoint):
                self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            self.close()
        return logged_rows(self.state)

    def close(self) -> None:
        """Leave nothing behind elsewhere, however training ended; what a kill leaves, the next start removes."""

    def save_policy(self, folder: Path) -> None:
        """Write what training is to leave, a whole checkpoint; called on every process, the first writes."""
        self.write_policy(folder)

    def write_policy(self, folder: Path) -> None:
        """Write the present policy as a whole checkpoint, an adapter also by itself, in `adapter`.

        Called on every process; the first writes.
        """
        state = self.gathered()
        if not is_first():
            return
        if self.lora is not None:
            from vlmr1.adapters import merged, save_adapter

            if self.bits is not None:
                from vlmr1.quantized import merged_with

                merged_with(self.model, self.family, self.checkpoint, folder)
            else:
                merged(self.model, self.family, folder, state)
            save_adapter(self.model, self.family, folder / "adapter", str(self.checkpoint), state)
        else:
            self.family.save(self.bare, folder, state and self.untied(state))

    def gathered(self) -> dict[str, torch.Tensor] | None:
        """The state dict of a model that DeepSpeed holds, sharded or not; called on every process."""
        return self.accelerator.get_state_dict(self.model_wrapped) if self.is_deepspeed_enabled else None

    def untied(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A bare model's state without what is tied: gathered, a tied weight stands in it twice."""
        return {name: tensor for name, tensor in state.items() if name not in self.bare.all_tied_weights_keys}


def save_training(
    trainer: VlmTrainer,
    rows: list[dict[str, float]],
    figures: dict[str, Any],
    checkpoint: Path,
    logs: Path,
    metrics: Path,
    extra: dict[str, Any] | None = None,
) -> None:
    """Leave a training's results: the checkpoint, a folder with every logged row, and the metrics file last."""
    if not is_first():
        trainer.save_policy(checkpoint)  # takes part in gathering sharded weights
        trainer.accelerator.wait_for_everyone()
        return
    with whole_folder(checkpoint) as folder:
        trainer.save_policy(folder)
        for file_name, value in (extra or {}).items():
            write_json(folder / file_name, value)
    with whole_folder(logs) as folder:
        write_jsonl(folder / "metrics.jsonl", rows)
        for kept in JOURNAL:
            if (trainer.work / kept).is_file():
                shutil.copyfile(trainer.work / kept, folder / kept)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if trainer.compute != trainer.asked_for:  # memory was short
        figures = {**figures, "prompts_per_device": trainer.compute.prompts_per_device}
    trainer.accelerator.wait_for_everyone()  # nobody looks for anything in the work folder any more
    write_json(metrics, rounded({"steps": rows[-1]["step"], "final_loss": rows[-1]["loss"], **figures}))
    shutil.rmtree(trainer.work)


def last_whole_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written whole; the first process removes interrupted ones."""
    whole: dict[int, Path] = {}
    for folder in work.glob("checkpoint-*"):
        if (folder / WHOLE).is_file():
            whole[int(folder.name.rpartition("-")[2])] = folder
        elif is_first():
            shutil.rmtree(folder)
    if not whole:
        return None
    step = max(whole)
    if is_first():
        print(f"{label(work)}: continuing after step {step}", flush=True)
    return whole[step]
