"""Qwen2-VL and Qwen2.5-VL: processor, coordinate frame, M-RoPE positions, tokens that must never be sampled.

Qwen2.5-VL speaks in absolute pixels of its resized input, both sides multiples of 28 (its report, arXiv 2502.13923);
Qwen2-VL in thousandths of the picture's sides (arXiv 2409.12191).
Tokenizer and image processor are composed here rather than by `AutoProcessor`, which needs torchvision.
Left out on purpose: video. Qwen3-VL has a file of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import nn
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2VLForConditionalGeneration,
    Qwen2VLModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_window_index

from vlmr1.boxes import Size
from vlmr1.families.base import THOUSANDTHS, Family, Picture, resized
from vlmr1.products import linear

IMAGE_PAD = "<|image_pad|>"
NEVER_SAMPLED = (IMAGE_PAD, "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
ENDS = ("<|im_end|>", "<|endoftext|>")


class PatchProduct(nn.Conv3d):
    """The patch embedding as the matrix product it is: its kernel is as large as its stride and as its input."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, E, 1, 1, 1) from (N, channels, frames, rows, columns)."""
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


class QwenVL(Family):
    """Everything about a Qwen2.5-VL checkpoint but its weights."""

    model_class = Qwen2_5_VLForConditionalGeneration
    inner_class: Any = Qwen2_5_VLModel
    vision_modules = ("visual",)
    projector_modules: ClassVar[tuple[str, ...]] = ("merger",)  # inside `visual`
    smallest_side = 28
    marker = IMAGE_PAD

    def __init__(self, checkpoint: Path, max_pixels: int | None) -> None:
        """Load tokenizer and image processor; pictures are shrunk to `max_pixels`, or to the checkpoint's own bound."""
        super().__init__(checkpoint)
        self.images = Qwen2VLImageProcessorPil.from_pretrained(checkpoint)
        if max_pixels is not None:
            least = min(self.images.size["shortest_edge"], max_pixels)
            self.images.size = {"shortest_edge": least, "longest_edge": max_pixels}
        (self.image_id,) = self.ids_of([IMAGE_PAD])
        self.end_ids = self.all_ends(self.ids_of(ENDS))
        self.never_sampled = self.ids_of(NEVER_SAMPLED)
        self.numbering = weightless(self.inner_class, self.config)

    def picture(self, image: Image.Image, key: str) -> Picture:
        seen = self.images(images=[image.convert("RGB")], return_tensors="pt")
        grid = seen["image_grid_thw"]  # (1, 3): frames, rows, columns of patches
        inputs = {"pixel_values": seen["pixel_values"], "image_grid_thw": grid}  # (patches, 1176), (1, 3)
        return Picture(key, inputs, int(grid.prod()) // self.images.merge_size**2, self.frame(grid))

    def seen(self, image: Image.Image) -> Image.Image:
        factor, frames = self.images.patch_size * self.images.merge_size, self.images.temporal_patch_size
        return resized(self.images, image, factor=factor, temporal_factor=frames)

    def frame(self, grid: torch.Tensor) -> Size:
        """(width, height) of the frame of a picture of this grid (1, 3)."""
        return (int(grid[0, 2]) * self.images.patch_size, int(grid[0, 1]) * self.images.patch_size)

    def place(self, size: Size) -> str:
        patches = self.images.get_number_of_image_patches(size[1], size[0])
        return self.marker * (patches // self.images.merge_size**2)

    def positions(self, ids: Sequence[int], pictures: Sequence[Picture]) -> torch.Tensor:
        """(3, P): text counts on in all three; a picture's tokens share a time and differ in row and column."""
        row = torch.tensor([list(ids)])  # (1, P)
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]) if pictures else None
        kinds = (row == self.image_id).int()  # 1 on visual tokens
        positions, _ = self.numbering.get_rope_index(row, mm_token_type_ids=kinds, image_grid_thw=grid)  # (3, 1, P)
        return positions[:, 0]

    def load_model(self, checkpoint: Path, dtype: torch.dtype) -> PreTrainedModel:
        model = super().load_model(checkpoint, dtype)
        model.model.visual.patch_embed.proj.__class__ = PatchProduct
        return model

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        pixels = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]).to(model.device)
        seen = model.get_image_features(pixels, grid, return_dict=True).last_hidden_state  # (patches, E)
        parts = seen.split([len(p.inputs["pixel_values"]) for p in pictures])
        return [self._in_order(model, part, one) for part, one in zip(parts, grid, strict=True)]

    def _in_order(self, model: PreTrainedModel, seen: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """A picture's patches (N, E) as the prompt lists them; the tower has them window by window."""
        vision, unit = model.config.vision_config, self.images.merge_size**2
        order, _ = get_vision_window_index(
            grid[None], vision.spatial_merge_size, vision.window_size, vision.patch_size
        )  # (tokens,)
        return seen.unflatten(0, (-1, unit))[torch.argsort(order).to(seen.device)].flatten(0, 1)

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        rows = model.model.visual.merger(torch.cat(list(features)))  # (tokens, H)
        parts = rows.split([len(one) // self.images.merge_size**2 for one in features])
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=parts)}}


class Qwen2VL(QwenVL):
    """Qwen2-VL: the same processor and positions, another class."""

    model_class = Qwen2VLForConditionalGeneration
    inner_class = Qwen2VLModel

    def frame(self, grid: torch.Tensor) -> Size:
        return THOUSANDTHS

    def _in_order(self, model: PreTrainedModel, seen: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return seen  # this tower has no windows


def weightless(inner_class: Any, config: Any) -> Any:
    """The model's class without weights, for its numbering of positions."""
    config = copy.deepcopy(config)
    config.text_config.num_hidden_layers = 1
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[:1]
    config.vision_config.depth = 1
    with torch.device("meta"):
        return inner_class(config)
