"""InternVL by transformers' own classes (InternVL2.5, 3 and 3.5 `-hf` checkpoints): tiles, frame, positions.

A picture is cut into square tiles plus a thumbnail; the model speaks in thousandths of the picture's sides.
Left out on purpose: checkpoints that bring code of their own, which would run it, and video.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, InternVLForConditionalGeneration, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from vlmr1.boxes import Size
from vlmr1.families.base import Family, Picture

OPEN, CONTEXT, CLOSE = "<img>", "<IMG_CONTEXT>", "</img>"
ENDS = ("<|im_end|>", "<|endoftext|>", "</s>")  # the last is InternLM's, beneath some InternVL2.5
NEVER_SAMPLED = (OPEN, CONTEXT, CLOSE, "<video>", "<|im_start|>")
FRAME = 1000  # coordinates run from 0 to it, on both axes


class InternVL(Family):
    """Everything about an InternVL checkpoint but its weights."""

    model_class = InternVLForConditionalGeneration
    vision_modules = ("vision_tower",)
    projector_modules = ("multi_modal_projector",)
    smallest_side = 1

    def __init__(self, checkpoint: Path, max_pixels: int) -> None:
        """Load tokenizer and image processor; a picture gets as many tiles as `max_pixels` pay for, at least one.

        The thumbnail, which a picture of several tiles has besides, comes on top.
        """
        super().__init__(checkpoint)
        self.images = GotOcr2ImageProcessorPil.from_pretrained(checkpoint)
        self.images.crop_to_patches = True  # as InternVLProcessor asks for; the published files leave it off
        tile = self.images.size["height"]
        self.images.max_patches = max(1, min(self.images.max_patches, max_pixels // tile**2))
        config = AutoConfig.from_pretrained(checkpoint)
        self.tokens_a_tile = config.image_seq_length
        self.image_id = config.image_token_id
        vocabulary = self.tokenizer.get_vocab()
        self.end_ids = self.all_ends([vocabulary[token] for token in ENDS if token in vocabulary])
        self.never_sampled = [vocabulary[token] for token in NEVER_SAMPLED if token in vocabulary]
        # The published chat templates write the context token where a picture stands.
        self.marker = CONTEXT

    def picture(self, image: Image.Image, key: str) -> Picture:
        seen = self.images(images=[image.convert("RGB")], return_tensors="pt")
        tiles = seen["pixel_values"]  # (tiles, 3, side, side)
        return Picture(key, {"pixel_values": tiles}, len(tiles) * self.tokens_a_tile, (FRAME, FRAME))

    def place(self, picture: Picture) -> str:
        return OPEN + CONTEXT * picture.tokens + CLOSE

    def tokens_of(self, size: Size) -> int:
        return self.images.get_number_of_image_patches(size[1], size[0]) * self.tokens_a_tile

    def positions(self, ids: Sequence[int], pictures: Sequence[Picture]) -> torch.Tensor:
        return torch.arange(len(ids))[None]  # (1, P)

    def save_processor(self, folder: Path) -> None:
        self.images.save_pretrained(folder)

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        tiles = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        seen: list[torch.Tensor] = []  # one (tiles, tokens, 4E): what the projector is given
        hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, given: seen.extend(given))
        try:
            model.get_image_features(pixel_values=tiles)
        finally:
            hook.remove()
        return list(seen[0].split([len(p.inputs["pixel_values"]) for p in pictures]))

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        tiles = model.model.multi_modal_projector(torch.cat(list(features)))  # (tiles, tokens, H)
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=tiles)}}
