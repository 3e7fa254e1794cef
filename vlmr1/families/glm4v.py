"""GLM-4V, as of GLM-4.1V: processor, M-RoPE positions, frame, and the tags that are tokens here.

The frame is thousandths of the picture's sides (grounding in github.com/zai-org/GLM-V). A turn ends where the next
one would begin, at `<|user|>`. The model's tags for thought and answer are tokens of their own and belong to the text,
though one of them may end a completion; the marks it puts around a final answer are dropped, as no other family has
them.
Left out on purpose: video, and the mixture-of-experts models (`glm4v_moe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Glm4vForConditionalGeneration, Glm4vModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

from vlmr1.boxes import Size
from vlmr1.families.base import THOUSANDTHS, Picture, given_to
from vlmr1.families.qwen_vl import QwenVL, weightless

IMAGE = "<|image|>"
ENDS = ("<|user|>", "<|observation|>", "<|endoftext|>")
SPOKEN = ("<think>", "</think>", "<answer>", "</answer>")  # tokens, and yet words of the completion
NEVER_SAMPLED = (
    IMAGE,
    "<|video|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|system|>",
    "<|assistant|>",
    "[gMASK]",
    "<sop>",
)
MARKS = ("<|begin_of_box|>", "<|end_of_box|>")  # around the final answer


class Glm4V(QwenVL):
    """Everything about a GLM-4V checkpoint but its weights. Pictures and positions are counted as Qwen2-VL's are."""

    model_class = Glm4vForConditionalGeneration
    inner_class = Glm4vModel
    projector_modules = ("downsample", "merger")  # inside `visual`
    marker = IMAGE

    def __init__(self, checkpoint: Path, max_pixels: int | None) -> None:
        """Load tokenizer and image processor; pictures are shrunk to `max_pixels`, or to the checkpoint's own bound."""
        super(QwenVL, self).__init__(checkpoint)
        self.images = Glm4vImageProcessorPil.from_pretrained(checkpoint)
        if max_pixels is not None:
            most = max_pixels * self.images.temporal_patch_size  # it counts a picture as so many frames
            least = min(self.images.size["shortest_edge"], most)
            self.images.size = {"shortest_edge": least, "longest_edge": most}
        (self.image_id,) = self.ids_of([IMAGE])
        self.end_ids = self.all_ends(self.ids_of(ENDS))
        self.never_sampled = self.ids_of(NEVER_SAMPLED)
        unspoken = {*self.tokenizer.all_special_ids, *self.ids_of([*ENDS, *NEVER_SAMPLED, *MARKS])}
        self.unspoken = unspoken - set(self.ids_of(SPOKEN))
        self.numbering = weightless(self.inner_class, self.config)

    def seen(self, image: Image.Image) -> Image.Image:
        once = super().seen(image)  # of a very thin picture the resized one would be resized further
        return once if super().seen(once).size == once.size else image.convert("RGB")

    def frame(self, grid: torch.Tensor) -> Size:
        return THOUSANDTHS

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode([token for token in ids if token not in self.unspoken])

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        """(tokens, E, 2, 2) of each picture: the patches of each visual token, as the projector takes them."""
        pixels = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]).to(model.device)
        (seen,) = given_to([model.model.visual.downsample], lambda: model.get_image_features(pixels, grid))
        return list(seen.split([p.tokens for p in pictures]))

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        visual = model.model.visual
        rows = visual.merger(visual.downsample(torch.cat(list(features))).flatten(1))  # (tokens, H)
        ready = BaseModelOutputWithPooling(pooler_output=rows.split([len(one) for one in features]))
        return {"mm_encoder_outputs": {"image": ready}}
