"""Sizes of models: read from a checkpoint's config.json, or known for the published bases that recipes name.

Left out on purpose: families whose layers are not counted here; they are refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmr1.settings import TinyModel


@dataclass(frozen=True)
class Tower:
    """The vision tower. Its unit is the patch; four patches become one visual token."""

    hidden: int
    intermediate: int
    layers: int
    gated: bool  # three matrices in the feed-forward part, else two
    inputs: int  # numbers of a patch
    side: int  # pixels of a patch
    tile: int = 0  # pixels of a tile's side; 0 where a picture is read whole
    most_tiles: int = 12


@dataclass(frozen=True)
class Shape:
    """A vision-language model. Biases and norms, under 0.1 % of the weights, are counted roughly."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    width: int  # of a head
    vocabulary: int
    tied: bool  # the head is the embedding
    tower: Tower

    @property
    def asked(self) -> int:
        """Width of a token's queries, all heads."""
        return self.heads * self.width

    @property
    def kept(self) -> int:
        """Width of a token's keys, and of its values."""
        return self.key_heads * self.width

    @property
    def linear(self) -> int:
        """Weights of the language model's linear layers, those that adapters hang on."""
        attention = self.hidden * (2 * self.asked + 2 * self.kept)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def language(self) -> int:
        """Weights of the language model, embedding and head included."""
        small = self.layers * (2 * self.hidden + self.asked + 2 * self.kept) + self.hidden
        return self.linear + small + self.embedding * (1 if self.tied else 2)

    @property
    def tower_weights(self) -> int:
        tower = self.tower
        matrices = 4 * tower.hidden**2 + (3 if tower.gated else 2) * tower.hidden * tower.intermediate
        small = 6 * tower.hidden + 2 * tower.intermediate
        positions = (tower.tile // tower.side) ** 2 * tower.hidden if tower.tile else 0
        return tower.layers * (matrices + small) + tower.inputs * tower.hidden + positions

    @property
    def projector(self) -> int:
        wide = 4 * self.tower.hidden
        inner = self.hidden if self.tower.tile else wide
        return wide * inner + inner * self.hidden

    @property
    def weights(self) -> int:
        return self.language + self.tower_weights + self.projector

    def lora(self, r: int) -> int:
        """Weights of adapters on all linear layers of the language model."""
        attention = 2 * (self.hidden + self.asked) + 2 * (self.hidden + self.kept)
        return self.layers * r * (attention + 3 * (self.hidden + self.intermediate))

    def lora_vision(self, r: int) -> int:
        """And on those of the tower."""
        tower = self.tower
        return tower.layers * r * (8 * tower.hidden + (3 if tower.gated else 2) * (tower.hidden + tower.intermediate))


_QWEN_TOWER = Tower(1280, 3420, 32, True, 1176, 14)
_INTERN_TOWER = Tower(1024, 4096, 24, False, 588, 14, 448)
PUBLISHED = {  # from the config.json that their makers published
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape(2048, 11008, 36, 16, 2, 128, 151936, True, _QWEN_TOWER),
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape(3584, 18944, 28, 28, 4, 128, 152064, False, _QWEN_TOWER),
    "Qwen/Qwen2.5-VL-32B-Instruct": Shape(
        5120, 27648, 64, 40, 8, 128, 152064, False, Tower(1280, 3456, 32, True, 1176, 14)
    ),
    "OpenGVLab/InternVL3_5-4B-HF": Shape(2560, 9728, 36, 32, 8, 128, 151936, False, _INTERN_TOWER),
}


def shape_of(model: str) -> Shape:
    """The shape of a checkpoint folder, or of a published model. Raises ValueError with the mend."""
    config = Path(model) / "config.json"
    if config.is_file():
        return from_config(json.loads(config.read_text(encoding="utf-8")), config)
    if model in PUBLISHED:
        return PUBLISHED[model]
    raise ValueError(
        f"warmup.pretrained.model: no sizes are known of {model}; name a folder with its config.json, or one of"
        f" {', '.join(PUBLISHED)}"
    )


def from_config(config: dict[str, Any], path: Path) -> Shape:
    """The shape that a config.json tells. Raises ValueError for a kind that is not counted here."""
    kind = config.get("model_type")
    if kind not in ("qwen2_vl", "qwen2_5_vl", "internvl"):
        raise ValueError(f"{path}: memory is planned for Qwen2-VL, Qwen2.5-VL and InternVL, not for {kind!r}")
    text, vision = config.get("text_config", config), config["vision_config"]
    if kind == "internvl":
        side, tile = (v[0] if isinstance(v, list) else v for v in (vision["patch_size"], vision["image_size"]))
        tower = Tower(
            vision["hidden_size"], vision["intermediate_size"], vision["num_hidden_layers"], False, 3 * side**2, side,
            tile,
        )  # fmt: skip
    elif kind == "qwen2_vl":
        wide = vision["embed_dim"]
        tower = Tower(wide, int(wide * vision["mlp_ratio"]), vision["depth"], False, 1176, 14)
    else:
        tower = Tower(vision["hidden_size"], vision["intermediate_size"], vision["depth"], True, 1176, 14)
    heads = text["num_attention_heads"]
    return Shape(
        text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"], heads,
        text.get("num_key_value_heads") or heads, text.get("head_dim") or text["hidden_size"] // heads,
        text["vocab_size"], bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))), tower,
    )  # fmt: skip


def from_tiny(tiny: TinyModel) -> Shape:
    """The shape of the model built from nothing."""
    return Shape(
        tiny.hidden_size, tiny.intermediate_size, tiny.layers, tiny.heads, tiny.heads, tiny.hidden_size // tiny.heads,
        tiny.vocabulary, tiny.tie_word_embeddings,
        Tower(tiny.vision_hidden_size, tiny.vision_intermediate_size, tiny.vision_depth, True, 1176, 14),
    )  # fmt: skip
