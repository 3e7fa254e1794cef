"""InternVL by transformers' own classes (InternVL2.5, 3 and 3.5 `-hf` checkpoints): tiles, frame, positions.

A picture is cut into square tiles plus a thumbnail; the model speaks in thousandths of the picture's sides (grounding
data in github.com/OpenGVLab/InternVL).
Left out on purpose: checkpoints that bring code of their own, which would run it, and video.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import InternVLForConditionalGeneration, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from vlmr1.boxes import Size
from vlmr1.families.base import THOUSANDTHS, Family, Picture, given_to

OPEN, CONTEXT, CLOSE = "<img>", "<IMG_CONTEXT>", "</img>"
ENDS = ("<|im_end|>", "<|endoftext|>", "</s>")  # the last is InternLM's, beneath some InternVL2.5
NEVER_SAMPLED = (OPEN, CONTEXT, CLOSE, "<video>", "<|im_start|>")


class InternVL(Family):
    """Everything about an InternVL checkpoint but its weights."""

    model_class = InternVLForConditionalGeneration
    vision_modules = ("vision_tower",)
    projector_modules = ("multi_modal_projector",)
    smallest_side = 1
    marker = CONTEXT  # the published chat templates write the context token where a picture stands

    def __init__(self, checkpoint: Path, max_pixels: int | None) -> None:
        """Load tokenizer and image processor; a picture gets as many tiles as `max_pixels` pay for, at least one.

        The thumbnail, which a picture of several tiles has besides, comes on top. None: as many as the checkpoint says.
        """
        super().__init__(checkpoint)
        self.images = GotOcr2ImageProcessorPil.from_pretrained(checkpoint)
        self.images.crop_to_patches = True  # as InternVLProcessor asks for; the published files leave it off
        if max_pixels is not None:
            paid = max_pixels // self.images.size["height"] ** 2
            self.images.max_patches = max(1, min(self.images.max_patches, paid))
        self.tokens_a_tile, self.image_id = self.config.image_seq_length, self.config.image_token_id
        self.end_ids = self.all_ends(self.ids_of(ENDS))
        self.never_sampled = self.ids_of(NEVER_SAMPLED)

    def picture(self, image: Image.Image, key: str) -> Picture:
        seen = self.images(images=[image.convert("RGB")], return_tensors="pt")
        tiles = seen["pixel_values"]  # (tiles, 3, side, side)
        return Picture(key, {"pixel_values": tiles}, len(tiles) * self.tokens_a_tile, THOUSANDTHS)

    def place(self, size: Size) -> str:
        tiles = self.images.get_number_of_image_patches(size[1], size[0])
        return OPEN + CONTEXT * (tiles * self.tokens_a_tile) + CLOSE

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        tiles = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        projector = model.model.multi_modal_projector
        (seen,) = given_to([projector], lambda: model.get_image_features(pixel_values=tiles))  # (tiles, tokens, 4E)
        return list(seen.split([len(p.inputs["pixel_values"]) for p in pictures]))

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        tiles = model.model.multi_modal_projector(torch.cat(list(features)))  # (tiles, tokens, H)
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=tiles)}}
