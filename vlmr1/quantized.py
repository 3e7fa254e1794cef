"""A base in 4 or 8 bits beneath trained adapters, by bitsandbytes through transformers (the extra `quant`).

The language model's linear layers are quantized; vision, embedding and head stay as they are, since coordinates hang
on the first and log-probabilities on the last. What training leaves is the adapter, and merged with the base in full
precision a plain checkpoint.
Left out on purpose: other libraries, quantized checkpoints as a base, and evaluation in few bits.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import BitsAndBytesConfig, PreTrainedModel

from vlmr1.adapters import INSIDE, merged_weights
from vlmr1.device import Device
from vlmr1.families.base import Family

HEAD = "lm_head"


def load_quantized(family: Family, checkpoint: Path, bits: str, device: Device) -> PreTrainedModel:
    """The checkpoint on this process's device, its language model's linear layers in `bits` (4bit or 8bit).

    4 bits are NF4 with quantized constants (QLoRA, arXiv 2305.14314), 8 bits LLM.int8 (arXiv 2208.07339).
    """
    config = BitsAndBytesConfig(
        load_in_4bit=bits == "4bit",
        load_in_8bit=bits == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.torch_dtype,
        llm_int8_skip_modules=[rf"(.*\.)?{name}" for name in (*family.vision_modules, *family.projector_modules, HEAD)],
    )
    where = {"": device.place}
    model = family.load_model(checkpoint, torch.float32, quantization_config=config, device_map=where)
    for layer in model.modules():
        # On some CPUs a 4-bit layer repacks itself for sampling, in bfloat16 and for sizes in multiples of 64 alone;
        # the policy that samples is to be the one that is scored.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


def merged_with(model: PeftModel, family: Family, base: Path, folder: Path) -> None:
    """Write a full, plain checkpoint: the base in full precision with the model's adapter merged into it."""
    whole = family.load_model(base, torch.float32)
    adapted = {n for n, layer in model.get_base_model().named_modules() if hasattr(layer, "lora_A")}
    state = {}
    for name, tensor in whole.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        state[INSIDE + (f"{layer}.base_layer.{leaf}" if layer in adapted else name)] = tensor
    for name, tensor in get_peft_model_state_dict(model).items():
        side, _, leaf = name.rpartition(".")
        state[f"{side}.default.{leaf}"] = tensor.cpu()
    family.save(whole, folder, merged_weights(model, state))
