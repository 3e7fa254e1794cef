"""Gemma 3: one square of a picture, a fixed number of visual tokens that see each other, and layers with a window.

Prompts cannot be shared exactly: a visual token sees those after it, and most layers see only the last so many tokens.
Nothing is published about a frame of coordinates, so this project teaches thousandths of the picture's sides.
Left out on purpose: pan and scan (further crops of long pictures), and Gemma 3 without a tower (`gemma3_text`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from vlmr1.boxes import Size
from vlmr1.families.base import THOUSANDTHS, Family, Picture, resized

OPEN, SOFT, CLOSE = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
ENDS = ("<end_of_turn>", "<eos>")
NEVER_SAMPLED = (OPEN, SOFT, CLOSE, "<start_of_turn>", "<bos>")


class Gemma3(Family):
    """Everything about a Gemma 3 checkpoint but its weights."""

    model_class = Gemma3ForConditionalGeneration
    vision_modules = ("vision_tower",)
    projector_modules = ("multi_modal_projector",)
    smallest_side = 1
    breaks = "its visual tokens see each other both ways and most of its layers see through a window"
    marker = OPEN

    def __init__(self, checkpoint: Path, max_pixels: int | None) -> None:
        """Load tokenizer and image processor. Raises ValueError for fewer `max_pixels` than its one square has."""
        super().__init__(checkpoint)
        self.images = Gemma3ImageProcessorPil.from_pretrained(checkpoint)
        self.images.do_pan_and_scan = False
        square = self.images.size["height"] * self.images.size["width"]
        if max_pixels is not None and max_pixels < square:
            raise ValueError(
                f"max_pixels: {max_pixels}, but gemma3 makes a square of {square} pixels of every picture; set it to"
                " that or more"
            )
        self.tokens_a_tile, self.image_id = self.config.mm_tokens_per_image, self.config.image_token_id
        self.end_ids = self.all_ends(self.ids_of(ENDS))
        self.never_sampled = self.ids_of(NEVER_SAMPLED)

    def picture(self, image: Image.Image, key: str) -> Picture:
        pixels = self.images(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]  # (1, 3, side, side)
        return Picture(key, {"pixel_values": pixels}, self.tokens_a_tile, THOUSANDTHS)

    def seen(self, image: Image.Image) -> Image.Image:
        return resized(self.images, image)

    def place(self, size: Size) -> str:
        return f"\n\n{OPEN}{SOFT * self.tokens_a_tile}{CLOSE}\n\n"

    def beside(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"token_type_ids": (ids == self.image_id).long()}  # 1 on the tokens that see each other
