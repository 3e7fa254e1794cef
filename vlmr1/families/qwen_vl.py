"""Qwen2.5-VL: processor, chat template, coordinate frame, positions, tokens that must never be sampled.

The model speaks in absolute pixels of its resized input, both sides multiples of 28.
Tokenizer and image processor are composed here rather than by `AutoProcessor`, which needs torchvision.
Left out on purpose: video, several pictures a question, Qwen2-VL and Qwen3-VL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, PreTrainedModel, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlmr1.boxes import Size

IMAGE_PAD = "<|image_pad|>"
NEVER_SAMPLED = (IMAGE_PAD, "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
ENDS = ("<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class Prompt:
    """One question ready for the model."""

    ids: list[int]  # the picture's place already repeated once a visual token
    pixel_values: torch.Tensor  # (patches, 1176) float32
    grid: torch.Tensor  # (1, 3) int64: frames, rows and columns of patches
    size: Size  # (width, height) of the resized picture: the frame of the model's coordinates


@dataclass(frozen=True)
class Batch:
    """Prompts side by side, padded on the left so that every completion starts in the same column."""

    input_ids: torch.Tensor  # (B, P)
    attention_mask: torch.Tensor  # (B, P), 0 on padding
    position_ids: torch.Tensor  # (3, B, P): time, row and column
    pixel_values: torch.Tensor  # (patches of all pictures, 1176)
    image_grid_thw: torch.Tensor  # (B, 3)

    @property
    def next_position(self) -> torch.Tensor:
        """(B,) the position of each row's first completion token."""
        return self.position_ids.amax(dim=(0, 2)) + 1

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class QwenVL:
    """Everything about a Qwen2.5-VL checkpoint but its weights."""

    def __init__(self, checkpoint: Path, max_pixels: int) -> None:
        """Load tokenizer and image processor from a checkpoint folder; pictures are shrunk to `max_pixels`."""
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.images = Qwen2VLImageProcessorPil.from_pretrained(checkpoint)
        self.images.size = {
            "shortest_edge": min(self.images.size["shortest_edge"], max_pixels),
            "longest_edge": max_pixels,
        }
        ids = self.tokenizer.convert_tokens_to_ids
        self.image_id: int = ids(IMAGE_PAD)
        self.pad_id: int = self.tokenizer.pad_token_id
        self.end_ids: list[int] = [ids(token) for token in ENDS]
        self.never_sampled: list[int] = [ids(token) for token in NEVER_SAMPLED]

    @staticmethod
    def load_model(checkpoint: Path, dtype: torch.dtype) -> PreTrainedModel:
        """The policy's weights, on the CPU. Only safetensors are read."""
        return Qwen2_5_VLForConditionalGeneration.from_pretrained(
            checkpoint, dtype=dtype, attn_implementation="sdpa", use_safetensors=True
        )

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write a checkpoint folder that `from_pretrained` opens; its bytes do not depend on when or where."""
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.images.save_pretrained(folder)

    def encode(self, text: str, picture: Image.Image) -> Prompt:
        """A prompt of one picture followed by one text, through the checkpoint's own chat template."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        seen = self.images(images=[picture.convert("RGB")], return_tensors="pt")
        grid = seen["image_grid_thw"]  # (1, 3)
        tokens = int(grid.prod()) // self.images.merge_size**2
        ids = self.tokenizer(chat.replace(IMAGE_PAD, IMAGE_PAD * tokens), add_special_tokens=False)["input_ids"]
        patch = self.images.patch_size
        size = (int(grid[0, 2]) * patch, int(grid[0, 1]) * patch)
        return Prompt(ids, seen["pixel_values"], grid, size)

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a completion, closed by the end of turn."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] + self.end_ids[:1]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion, special tokens dropped."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def batch(self, model: Any, prompts: Sequence[Prompt]) -> Batch:
        """Prompts of any lengths as one left-padded batch. `model` (unwrapped) knows how pictures are numbered."""
        longest = max(len(p.ids) for p in prompts)
        input_ids = torch.tensor([[self.pad_id] * (longest - len(p.ids)) + p.ids for p in prompts])  # (B, P)
        mask = torch.tensor([[0] * (longest - len(p.ids)) + [1] * len(p.ids) for p in prompts])  # (B, P)
        grid = torch.cat([p.grid for p in prompts])  # (B, 3)
        kinds = (input_ids == self.image_id).int()  # 1 on visual tokens
        positions, _ = model.model.get_rope_index(
            input_ids, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=mask
        )
        return Batch(input_ids, mask, positions, torch.cat([p.pixel_values for p in prompts]), grid)
