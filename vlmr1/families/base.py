"""What every family of VLMs gives the engine: prompts of tokens and pictures, and a few facts about the model.

A family owns its model's peculiarities: processor, chat template, coordinate frame, positions, tokens that must never
be sampled, which modules are vision. Everything else of the project sees only these classes.
Left out on purpose: video.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from vlmr1.boxes import Size
from vlmr1.sample import PLACE

Part = Literal["tower", "projector", "language"]


@dataclass(frozen=True)
class Picture:
    """One picture, ready for the model."""

    key: str  # equal keys mean equal pixels, whose tokens may be shared
    inputs: dict[str, torch.Tensor]  # the model's own arguments; pictures are joined along the first axis
    tokens: int  # visual tokens it takes in the prompt
    size: Size  # (width, height) of what the model sees: the frame of its coordinates


@dataclass(frozen=True)
class Prompt:
    """One question, ready for the model."""

    ids: list[int]  # P tokens, each picture's place already repeated once a visual token
    positions: torch.Tensor  # (A, P) int64; A = 3 (time, row, column) with M-RoPE, else 1
    pictures: tuple[Picture, ...]  # in the order of their places

    @property
    def size(self) -> Size:
        """The frame of coordinates: the first picture's. (0, 0) without one."""
        return self.pictures[0].size if self.pictures else (0, 0)


class Family(ABC):
    """Everything about a checkpoint but its weights."""

    model_class: ClassVar[Any]  # the transformers class
    vision_modules: ClassVar[tuple[str, ...]]  # names of the tower's modules, anywhere in a parameter's path
    projector_modules: ClassVar[tuple[str, ...]]  # names of what joins tower and language model
    smallest_side: ClassVar[int]  # pixels; a smaller picture cannot be read
    image_id: int
    pad_id: int
    end_ids: list[int]  # every token that ends a completion
    never_sampled: list[int]  # placeholders and openings that would break the next forward pass

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.tokenizer.init_kwargs.pop("local_files_only", None)  # HF_HUB_OFFLINE is no part of what is saved
        self.pad_id = self.tokenizer.pad_token_id
        self.checkpoint = checkpoint

    @abstractmethod
    def picture(self, image: Image.Image, key: str) -> Picture:
        """Resize and cut up a picture as the checkpoint's image processor does."""

    @abstractmethod
    def place(self, picture: Picture) -> str:
        """The text that holds a picture's place, its placeholder repeated once a visual token."""

    @abstractmethod
    def tokens_of(self, size: Size) -> int:
        """Visual tokens of a stored picture of `size` (width, height), without opening it."""

    @abstractmethod
    def positions(self, ids: Sequence[int], pictures: Sequence[Picture]) -> torch.Tensor:
        """(A, P) rotary positions of a prompt's tokens."""

    @abstractmethod
    def save_processor(self, folder: Path) -> None:
        """Write the image processor's files."""

    @abstractmethod
    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        """What the tower alone makes of each picture: one tensor each, rows in the order of its visual tokens."""

    @abstractmethod
    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Forward arguments in place of pixels: ready features, sent through the model's projector."""

    def all_ends(self, own: Sequence[int]) -> list[int]:
        """The family's end tokens, its end of turn first, and those that the checkpoint's generation config names."""
        path = self.checkpoint / "generation_config.json"
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        return list(
            dict.fromkeys([*own, *(named if isinstance(named, list) else [named] if named is not None else [])])
        )

    marker: str  # how the checkpoint's chat template writes one picture's place

    def load_model(self, checkpoint: Path, dtype: torch.dtype) -> PreTrainedModel:
        """The policy's weights, on the CPU. Only safetensors are read."""
        return self.model_class.from_pretrained(
            checkpoint, dtype=dtype, attn_implementation="sdpa", use_safetensors=True
        )

    def save(self, model: PreTrainedModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint folder that `from_pretrained` opens; its bytes do not depend on when or where.

        `weights` are the model's own where they were gathered from several processes.
        """
        model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)
        self.save_processor(folder)

    def encode(self, text: str, images: Sequence[Image.Image], keys: Sequence[str]) -> Prompt:
        """A prompt of text and pictures, through the checkpoint's own chat template.

        Pictures stand where the text says `<image>`, or before it where it never does. `keys` names each picture; two
        of one key must have equal pixels. Raises ValueError for as many places as there are no pictures.
        """
        pictures = tuple(self.picture(image, key) for image, key in zip(images, keys, strict=True))
        chat = self._chat(text, len(pictures))
        before, *after = chat.split(self.marker, len(pictures))
        if len(after) != len(pictures):
            raise ValueError(f"the chat template keeps {len(after)} of {len(pictures)} pictures")
        full = before + "".join(self.place(picture) + part for picture, part in zip(pictures, after, strict=True))
        ids = self.tokenizer(full, add_special_tokens=False)["input_ids"]
        if ids.count(self.image_id) != sum(picture.tokens for picture in pictures):
            raise ValueError(f"the text says {self.marker!r}, which stands for a picture; take it out")
        return Prompt(ids, self.positions(ids, pictures), pictures)

    def _chat(self, text: str, pictures: int) -> str:
        """The prompt's text with the template's own marker at each picture's place."""
        first, *rest = text.split(PLACE)
        if rest and len(rest) != pictures:
            raise ValueError(f"the text says {PLACE} {len(rest)} times and has {pictures} pictures")
        image: dict[str, str] = {"type": "image"}
        content = [] if rest else [image] * pictures
        content += [{"type": "text", "text": first}] if first or not rest else []
        for part in rest:
            content += [image, {"type": "text", "text": part}] if part else [image]
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )

    def prompt_length(self, text: str, sizes: Sequence[Size]) -> int:
        """Tokens of the prompt `encode` would make of a text and pictures of these sizes."""
        chat = self._chat(text, len(sizes))
        written = len(self.tokenizer(chat, add_special_tokens=False)["input_ids"])  # each place as one marker
        one = Picture("", {}, 1, (0, 0))
        around = len(self.tokenizer(self.place(one), add_special_tokens=False)["input_ids"]) - 2
        return written + sum(self.tokens_of(size) + around for size in sizes)

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a completion, closed by the end of turn."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] + self.end_ids[:1]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion, special tokens dropped."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def part(self, name: str) -> Part:
        """What a parameter or module of this dotted name belongs to. Qwen's projector sits inside its tower."""
        names = set(name.split("."))
        if names & set(self.projector_modules):
            return "projector"
        return "tower" if names & set(self.vision_modules) else "language"

    def is_vision(self, name: str) -> bool:
        return self.part(name) != "language"

    def frozen(self, model: nn.Module, part: Part) -> bool:
        """Whether nothing of this part is trained. What a frozen tower makes of a picture never changes."""
        return not any(p.requires_grad for name, p in model.named_parameters() if self.part(name) == part)


def config_of(model: Any) -> Any:
    """The language model's config."""
    return model.config.get_text_config()
