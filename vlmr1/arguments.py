"""What transformers' Trainer and DeepSpeed are told of a run: params and the decided device, in their own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from vlmr1.device import Device
from vlmr1.settings import Compute, DeepSpeed, Optimisation


def training_arguments(
    settings: Optimisation, compute: Compute, device: Device, work: Path, *, seed: int, batch: int, steps: int
) -> TrainingArguments:
    """transformers' arguments for a run of `steps` steps of `batch` prompts on all processes together."""
    accumulation = compute.accumulation(batch, "the step's prompts")
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=batch // compute.processes // accumulation,
        gradient_accumulation_steps=accumulation,
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
        bf16=device.dtype == "bfloat16",
        fp16=device.dtype == "float16",
        activation_checkpointing=compute.activation_checkpointing,
        dataloader_num_workers=compute.workers,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # a prompt's and its completions' passes share buffers within one step
        deepspeed=None if compute.deepspeed is None else deepspeed_config(compute.deepspeed, device),
        use_cpu=device.kind == "cpu",
        ddp_backend=device.backend if compute.processes > 1 else None,
        remove_unused_columns=False,
        disable_tqdm=True,  # WatchedRun shows the run
        report_to="none",
    )
    if compute.deepspeed is not None:
        import deepspeed

        # Before the model is loaded, or on a CPU it takes each process for the only one.
        deepspeed.init_distributed(torch.distributed.get_backend(), verbose=False)
    if arguments.world_size != compute.processes:
        raise ValueError(f"compute.launch: {compute.processes} processes are wanted, {arguments.world_size} run")
    if arguments.device.type != device.kind:
        raise ValueError(f"compute.device: {device.kind} is wanted, and the trainer takes {arguments.device.type}")
    arguments._n_gpu = min(1, arguments.n_gpu)  # else the Trainer would split our lists over every GPU it sees
    return arguments


def deepspeed_config(sharding: DeepSpeed, device: Device) -> dict[str, Any]:
    """DeepSpeed's own config; transformers fills in what it says itself."""
    zero: dict[str, Any] = {"stage": sharding.stage, "contiguous_gradients": True, "overlap_comm": True}
    if sharding.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device.kind != "cpu"}
    if sharding.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": device.kind != "cpu"}
    if sharding.stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    auto = {key: "auto" for key in ("train_batch_size", "gradient_accumulation_steps", "gradient_clipping")}
    return auto | {
        "train_micro_batch_size_per_gpu": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        # The optimizer is torch's AdamW in every set-up, so that sharding does not change what is learned.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _schedule(settings: Optimisation, steps: int) -> dict[str, Any]:
    """transformers' arguments of the learning rate's schedule."""
    if settings.decay_share is None:
        return {}
    return {"num_decay_steps": round(settings.decay_share * steps), "decay_type": "linear"}
