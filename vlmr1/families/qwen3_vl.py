"""Qwen3-VL: as Qwen2.5-VL, but patches of 16 pixels, thousandths as frame, and a tower that speaks at several depths.

The tower's last layer gives the visual tokens; some layers below it give what the language model's first layers add at
the same places (DeepStack). Each such depth has a projector of its own.
The frame is thousandths of the picture's sides: the cookbook on spatial understanding in github.com/QwenLM/Qwen3-VL.
Left out on purpose: video, and the mixture-of-experts models (`qwen3_vl_moe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen3VLForConditionalGeneration, Qwen3VLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from vlmr1.boxes import Size
from vlmr1.families.base import THOUSANDTHS, Picture, given_to
from vlmr1.families.qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Everything about a Qwen3-VL checkpoint but its weights."""

    model_class = Qwen3VLForConditionalGeneration
    inner_class = Qwen3VLModel
    projector_modules = ("merger", "deepstack_merger_list")  # inside `visual`
    smallest_side = 32

    def frame(self, grid: torch.Tensor) -> Size:
        return THOUSANDTHS

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        """(depths, patches, E) of each picture: the tower's last layer, then those that feed the language model's."""
        pixels = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]).to(model.device)
        depths = given_to(_projectors(model), lambda: model.get_image_features(pixels, grid))  # (patches, E) each
        return list(torch.stack(depths).split([len(p.inputs["pixel_values"]) for p in pictures], dim=1))

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        lengths = [one.shape[1] // self.images.merge_size**2 for one in features]
        depths = torch.cat(list(features), dim=1)
        last, *below = [  # of each depth, each picture's (tokens, H)
            projector(depth).split(lengths) for projector, depth in zip(_projectors(model), depths, strict=True)
        ]
        ready = BaseModelOutputWithDeepstackFeatures(pooler_output=last, deepstack_features=below)
        return {"mm_encoder_outputs": {"image": ready}}


def _projectors(model: Any) -> list[nn.Module]:
    """The last layer's first, then those of the layers below."""
    return [model.model.visual.merger, *model.model.visual.deepstack_merger_list]
