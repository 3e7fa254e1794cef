"""Sizes of vision towers and projectors, family by family, as their config.json tells them.

Left out on purpose: families whose layers are not counted here; `vlmr1.plan.shapes` refuses them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tower:
    """The vision tower. Its unit is the patch; `merge` patches, nearly always four, become one visual token."""

    hidden: int
    intermediate: int
    layers: int
    gated: bool  # three matrices in the feed-forward part, else two
    inputs: int  # numbers of a patch
    side: int  # pixels of a patch
    tile: int = 0  # pixels of a tile's side; 0 where a picture is read whole
    most_tiles: int = 12
    places: int = 0  # learned positions of a picture that is read whole
    depths: int = 1  # of its layers whose states are projected for the language model, the last among them
    merge: int = 4
    square: bool = False  # whether tiles fill a square on the picture's longer side, whatever its shape
    joined: int = 0  # weights of the projector, where it is not of two layers


Config = dict[str, Any]


def _qwen2(config: Config, vision: Config, text: Config) -> Tower:
    wide = vision["embed_dim"]
    return Tower(wide, int(wide * vision["mlp_ratio"]), vision["depth"], False, 1176, 14)


def _qwen2_5(config: Config, vision: Config, text: Config) -> Tower:
    return Tower(vision["hidden_size"], vision["intermediate_size"], vision["depth"], True, 1176, 14)


def _qwen3(config: Config, vision: Config, text: Config) -> Tower:
    side = vision["patch_size"]
    return Tower(
        vision["hidden_size"], vision["intermediate_size"], vision["depth"], False,
        3 * vision["temporal_patch_size"] * side**2, side, places=vision["num_position_embeddings"],
        depths=1 + len(vision["deepstack_visual_indexes"]),
    )  # fmt: skip


def _glm4v(config: Config, vision: Config, text: Config) -> Tower:
    """Its blocks are as wide within as its output; what `intermediate_size` widens is the projector."""
    wide, out, side, merge = vision["hidden_size"], vision["out_hidden_size"], vision["patch_size"], 4
    return Tower(
        wide, out, vision["depth"], True, 3 * vision["temporal_patch_size"] * side**2, side,
        places=(vision["image_size"] // side) ** 2,
        joined=merge * wide * out + out**2 + 3 * out * vision["intermediate_size"], merge=merge,
    )  # fmt: skip


def _tiled(vision: Config, **more: Any) -> Tower:
    """A tower of squares, with a plain feed-forward part."""
    side, tile = (v[0] if isinstance(v, list) else v for v in (vision["patch_size"], vision["image_size"]))
    return Tower(
        vision["hidden_size"], vision["intermediate_size"], vision["num_hidden_layers"], False, 3 * side**2, side, tile,
        **more,
    )  # fmt: skip


def _internvl(config: Config, vision: Config, text: Config) -> Tower:
    return _tiled(vision)


def _smolvlm(config: Config, vision: Config, text: Config) -> Tower:
    merge = config["scale_factor"] ** 2
    joined = merge * vision["hidden_size"] * text["hidden_size"]
    return _tiled(vision, most_tiles=16, merge=merge, square=True, joined=joined)  # four tiles a side, as published


def _gemma3(config: Config, vision: Config, text: Config) -> Tower:
    merge = (vision["image_size"] // vision["patch_size"]) ** 2 // config["mm_tokens_per_image"]
    return _tiled(vision, most_tiles=1, merge=merge, joined=vision["hidden_size"] * text["hidden_size"])


TOWERS: dict[str, Callable[[Config, Config, Config], Tower]] = {  # of config, vision_config, text_config
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
    "internvl": _internvl,
    "glm4v": _glm4v,
    "smolvlm": _smolvlm,
    "idefics3": _smolvlm,
    "gemma3": _gemma3,
}
TERSE = ("smolvlm", "idefics3", "gemma3")  # published with what their class assumes left out, even sizes
