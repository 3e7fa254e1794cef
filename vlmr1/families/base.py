"""What every family of VLMs gives the engine: prompts of tokens and pictures, and a few facts about the model.

A family owns its model's peculiarities: processor, chat template, coordinate frame, positions, tokens that must never
be sampled, which modules are vision. Everything else of the project sees only these classes.
Left out on purpose: video.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel
from transformers.image_utils import SizeDict

from vlmr1.boxes import Size
from vlmr1.sample import PLACE

Part = Literal["tower", "projector", "language"]
THOUSANDTHS: Size = (1000, 1000)  # the frame of models that speak in thousandths of the picture's sides
THOUGHT = "<think>"


@dataclass(frozen=True)
class Picture:
    """One picture, ready for the model."""

    key: str  # equal keys mean equal pixels, whose tokens may be shared
    inputs: dict[str, torch.Tensor]  # the model's own arguments; pictures are joined along the first axis
    tokens: int  # visual tokens it takes in the prompt
    size: Size  # (width, height) of the frame of its coordinates: THOUSANDTHS, or the pixels that the model sees


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
    breaks: ClassVar[str | None] = None  # why no completions may share their prompt; None where sharing is exact
    images: Any  # transformers' image processor, the one without torchvision
    marker: str  # how the checkpoint's chat template writes one picture's place
    image_id: int  # the token that stands for one visual token
    pad_id: int
    end_ids: list[int]  # every token that ends a completion
    never_sampled: list[int]  # placeholders and openings that would break the next forward pass

    def __init__(self, checkpoint: Path) -> None:
        """Load the tokenizer; code that a checkpoint may bring is never run. Raises ValueError without a template."""
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self.checkpoint, self.config = checkpoint, self.model_class.config_class.from_pretrained(checkpoint)
        self.tokenizer.chat_template = self.tokenizer.chat_template or _template_beside(checkpoint)
        self.pad_id = self.tokenizer.pad_token_id
        # Templates of models that always think open the thought themselves; its tag belongs to the completion.
        asked = self._chat("", 0)
        self.opened = asked[asked.rindex(THOUGHT) :] if asked.rstrip().endswith(THOUGHT) else ""

    @abstractmethod
    def picture(self, image: Image.Image, key: str) -> Picture:
        """Resize and cut up a picture as the checkpoint's image processor does."""

    def seen(self, image: Image.Image) -> Image.Image:
        """The picture as a server is sent it: RGB, resized as `picture` does, so that doing it again changes nothing.

        As it is where a processor cuts tiles, which the server then does alike.
        """
        return image.convert("RGB")

    @abstractmethod
    def place(self, size: Size) -> str:
        """The text that holds the place of a picture of `size` (width, height): its placeholder once a visual token."""

    def features(self, model: PreTrainedModel, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        """What the tower alone makes of each picture: one tensor each, for `project` alone to read.

        Asked for only where prompts are shared.
        """
        raise NotImplementedError

    def project(self, model: PreTrainedModel, features: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Forward arguments in place of pixels: ready features, sent through the model's projector."""
        raise NotImplementedError

    def positions(self, ids: Sequence[int], pictures: Sequence[Picture]) -> torch.Tensor:
        """(A, P) rotary positions of a prompt's tokens. Plain counting here; M-RoPE overrides it."""
        return torch.arange(len(ids))[None]

    def beside(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Forward arguments that go with token ids (R, L) besides positions and mask. Most models have none."""
        return {}

    def tokens_of(self, size: Size) -> int:
        """Visual tokens of a stored picture of `size` (width, height), without opening it."""
        return self.place(size).count(self.placeholder)

    @property
    def placeholder(self) -> str:
        """The text of one visual token."""
        return self.tokenizer.convert_ids_to_tokens(self.image_id)

    def ids_of(self, tokens: Sequence[str]) -> list[int]:
        """The ids of those tokens that this checkpoint's vocabulary has."""
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[token] for token in tokens if token in vocabulary]

    def check_sharing(self, share: bool | None) -> None:
        """Raises ValueError where completions are to share their prompt, and this architecture cannot do so exactly."""
        if share and self.breaks is not None:
            raise ValueError(
                f"share_prefix: {self.config.model_type} cannot share prompts exactly, because {self.breaks}; set it to"
                " false"
            )

    def all_ends(self, own: Sequence[int]) -> list[int]:
        """The family's end tokens, its end of turn first, and those that the checkpoint's generation config names."""
        path = self.checkpoint / "generation_config.json"
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        return list(
            dict.fromkeys([*own, *(named if isinstance(named, list) else [named] if named is not None else [])])
        )

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
        self.images.save_pretrained(folder)

    def encode(self, text: str, images: Sequence[Image.Image], keys: Sequence[str]) -> Prompt:
        """A prompt of text and pictures, through the checkpoint's own chat template.

        Pictures stand where the text says `<image>`, or before it where it never does. `keys` names each picture; two
        of one key must have equal pixels. Raises ValueError for as many places as there are no pictures.
        """
        pictures = tuple(self.picture(image, key) for image, key in zip(images, keys, strict=True))
        full = self._text(text, [self.place(image.size) for image in images])
        ids = self.tokenizer(full, add_special_tokens=False)["input_ids"]
        if ids.count(self.image_id) != sum(picture.tokens for picture in pictures):
            raise ValueError(f"the text says {self.placeholder!r}, which stands for a picture; take it out")
        return Prompt(ids, self.positions(ids, pictures), pictures)

    def _text(self, text: str, places: Sequence[str]) -> str:
        """The prompt with each picture's place written out."""
        before, *after = self._chat(text, len(places)).split(self.marker)
        if len(after) < len(places):
            raise ValueError(f"the chat template keeps {len(after)} of {len(places)} pictures")
        if len(after) > len(places):
            raise ValueError(f"the text says {self.marker!r}, which stands for a picture; take it out")
        return before + "".join(place + part for place, part in zip(places, after, strict=True))

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
        places = [self.place(size) for size in sizes]
        run = re.compile(f"({re.escape(self.placeholder)})+")  # of a special token, whose number changes no other token
        short = [run.sub(self.placeholder, place) for place in places]
        written = len(self.tokenizer(self._text(text, short), add_special_tokens=False)["input_ids"])
        return written + (len("".join(places)) - len("".join(short))) // len(self.placeholder)

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a completion, closed by the end of turn."""
        if self.opened:  # the template has said it
            text = text.removeprefix(THOUGHT)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] + self.end_ids[:1]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion, special tokens dropped, with the thought's tag where the template opened it."""
        return self.opened + self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

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


def resized(images: Any, image: Image.Image, **more: Any) -> Image.Image:
    """An RGB picture, resized by an image processor's own `resize`."""
    array = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    size = images.size if isinstance(images.size, SizeDict) else SizeDict(**images.size)
    array = images.resize(array, size, resample=images.resample, **more)  # (3, height, width) uint8
    return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))


def given_to(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[torch.Tensor]:
    """What each of these modules is given, once each, while `run` runs."""
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, given, i=i: seen.__setitem__(i, given[0]))
        for i, module in enumerate(modules)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[i] for i in range(len(modules))]


def _template_beside(checkpoint: Path) -> str:
    """The chat template that older checkpoints keep beside the tokenizer, for the processor."""
    path = checkpoint / "chat_template.json"
    if not path.is_file():
        raise ValueError(f"{checkpoint}: no chat template; take the checkpoint that was tuned to follow instructions")
    return json.loads(path.read_text(encoding="utf-8"))["chat_template"]
