"""SmolVLM, SmolVLM2 and Idefics3: tiles with their row and column written out, and the whole picture last.

A picture's longer side becomes so many tiles; one that fits a tile is seen once, whole. Nothing is published about a
frame of coordinates, so this project teaches them thousandths of the picture's sides, as most others have it.
Left out on purpose: video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Idefics3ForConditionalGeneration, PreTrainedModel, SmolVLMForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from vlmr1.boxes import Size
from vlmr1.families.base import THOUSANDTHS, Family, Picture, given_to

IMAGE, AROUND, WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
TILE = "<row_{}_col_{}>"
ENDS = ("<end_of_utterance>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>")
NEVER_SAMPLED = (IMAGE, AROUND, WHOLE, "<|im_start|>", "<|begin_of_text|>")
MOST_ROWS = 6  # for which these models have tokens


class SmolVLM(Family):
    """Everything about a SmolVLM checkpoint but its weights."""

    model_class = SmolVLMForConditionalGeneration
    images_class: Any = SmolVLMImageProcessorPil
    vision_modules = ("vision_model",)
    projector_modules = ("connector",)
    smallest_side = 1
    marker = IMAGE

    def __init__(self, checkpoint: Path, max_pixels: int | None) -> None:
        """Load tokenizer and image processor; a picture's longer side gets as many tiles as a square of them may have.

        `max_pixels` bounds that square, one tile at least; None: as many as the checkpoint says. The whole picture,
        which one of several tiles has besides, comes on top.
        """
        super().__init__(checkpoint)
        self.images = self.images_class.from_pretrained(checkpoint)
        self.tile = self.images.max_image_size["longest_edge"]  # pixels
        side = self.images.size["longest_edge"] // self.tile  # tiles
        if max_pixels is not None:
            side = min(side, math.isqrt(max_pixels) // self.tile)
        self.images.size = {"longest_edge": self.tile * max(1, side)}
        vision = self.config.vision_config
        self.tokens_a_tile = (vision.image_size // vision.patch_size // self.config.scale_factor) ** 2
        self.image_id = self.config.image_token_id
        self.end_ids = self.all_ends(self.ids_of(ENDS))
        tiles = [TILE.format(row + 1, column + 1) for row in range(MOST_ROWS) for column in range(MOST_ROWS)]
        self.never_sampled = self.ids_of([*NEVER_SAMPLED, *tiles])

    def picture(self, image: Image.Image, key: str) -> Picture:
        seen = self.images(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]
        tiles = seen.transpose(0, 1)  # (tiles, 1, 3, side, side): all are whole, so that no mask is needed
        return Picture(key, {"pixel_values": tiles}, len(tiles) * self.tokens_a_tile, THOUSANDTHS)

    def place(self, size: Size) -> str:
        rows, columns = self._grid(size)
        seen = IMAGE * self.tokens_a_tile
        tiles = "".join(
            "".join(f"{AROUND}{TILE.format(row + 1, column + 1)}{seen}" for column in range(columns)) + "\n"
            for row in range(rows)
        )
        return f"{tiles}\n{AROUND}{WHOLE}{seen}{AROUND}" if tiles else f"{AROUND}{WHOLE}{seen}{AROUND}"

    def _grid(self, size: Size) -> tuple[int, int]:
        """Rows and columns of tiles of a picture of `size`; (0, 0) for one that is seen whole."""
        (width, height), longest = size, self.images.size["longest_edge"]
        if not self.images.do_image_splitting or longest == self.tile:
            return 0, 0
        # The other side twice, as the processor rounds it: to even pixels, then with the ratio that these have.
        if width >= height:
            other = int(longest / (longest / _even(longest / (width / height))))
            return math.ceil(other / self.tile), longest // self.tile
        other = int(longest * (_even(longest * (width / height)) / longest))
        return longest // self.tile, math.ceil(other / self.tile)

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        tiles = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        (seen,) = given_to([model.model.connector], lambda: model.get_image_features(tiles))  # (tiles, patches, E)
        return list(seen.split([len(p.inputs["pixel_values"]) for p in pictures]))

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        rows = model.model.connector(torch.cat(list(features))).flatten(0, 1)  # (tokens, H)
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=rows)}}


def _even(side: float) -> int:
    return max(1, int(side) + int(side) % 2)


class Idefics3(SmolVLM):
    """Idefics3: the same tiles and places, another class."""

    model_class = Idefics3ForConditionalGeneration
    images_class = Idefics3ImageProcessorPil
