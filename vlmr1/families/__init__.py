"""Families: one file for each kind of VLM, holding what is peculiar to it. Found by config.json's `model_type`.

`docs/add-a-family.md` says how to add one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmr1.families.base import Family
from vlmr1.families.gemma3 import Gemma3
from vlmr1.families.glm4v import Glm4V
from vlmr1.families.internvl import InternVL
from vlmr1.families.qwen3_vl import Qwen3VL
from vlmr1.families.qwen_vl import Qwen2VL, QwenVL
from vlmr1.families.smolvlm import Idefics3, SmolVLM

FAMILIES: dict[str, Any] = {
    "qwen2_vl": Qwen2VL,
    "qwen2_5_vl": QwenVL,
    "qwen3_vl": Qwen3VL,
    "internvl": InternVL,
    "glm4v": Glm4V,
    "smolvlm": SmolVLM,
    "idefics3": Idefics3,
    "gemma3": Gemma3,
}


def load_family(checkpoint: Path, max_pixels: int | None) -> Family:
    """The family of a checkpoint folder; `max_pixels` of a picture, or None for the checkpoint's own bound.

    Raises ValueError naming what is missing or the supported types.
    """
    config = checkpoint / "config.json"
    if not config.is_file():
        raise ValueError(f"{checkpoint}: no config.json; a checkpoint folder as save_pretrained writes it is needed")
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config}: not JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(said, dict):
        raise ValueError(f"{config}: holds no mapping; fetch the checkpoint again")
    if said.get("model_type") not in FAMILIES:
        raise ValueError(f"{config}: {_unsupported(said)}")
    return FAMILIES[said["model_type"]](checkpoint, max_pixels)


def _unsupported(said: dict[str, Any]) -> str:
    """Why a config is refused, and the mend."""
    supported = f"supported: {', '.join(FAMILIES)}"
    if "auto_map" in said:
        return (
            f"model_type {said.get('model_type')!r} comes with code of its own, which is never run; take the checkpoint"
            f" converted to transformers' own classes, whose name often ends in -hf ({supported})"
        )
    return f"model_type {said.get('model_type')!r} is not supported; {supported}; docs/add-a-family.md adds one"
