"""Families: one file for each kind of VLM, holding what is peculiar to it. Found by config.json's `model_type`."""

from __future__ import annotations

import json
from pathlib import Path

from vlmr1.families.base import Family
from vlmr1.families.internvl import InternVL
from vlmr1.families.qwen_vl import Qwen2VL, QwenVL

FAMILIES: dict[str, type[QwenVL] | type[InternVL]] = {
    "qwen2_vl": Qwen2VL,
    "qwen2_5_vl": QwenVL,
    "internvl": InternVL,
}


def load_family(checkpoint: Path, max_pixels: int) -> Family:
    """The family of a checkpoint folder. Raises ValueError naming what is missing or the supported types."""
    config = checkpoint / "config.json"
    if not config.is_file():
        raise ValueError(f"{checkpoint}: no config.json; a checkpoint folder as save_pretrained writes it is needed")
    model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(f"{config}: model_type {model_type!r} is not supported; supported: {', '.join(FAMILIES)}")
    return FAMILIES[model_type](checkpoint, max_pixels)
