"""Small random checkpoints of the real classes, for tests and benchmarks: nothing is downloaded, nothing is learnt.

`write_random` leaves a folder as a published checkpoint has it: weights, tokenizer, chat template, image processor.
Grouped key heads, a vocabulary wider than the tokenizer's and weights large enough that every wrong mask or position
shows. Left out on purpose: learning (`tiny` learns) and merges in the tokenizer, which is bytes and special tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlmr1.families.tiny import CHAT_TEMPLATE, SPECIAL

# InternVL's names for its tokens, as its tokenizers carry them.
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "context_image_token": "<IMG_CONTEXT>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}
INTERNVL_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *INTERNVL_TOKENS.values())
# The published templates, too, write a line break after a picture.
INTERNVL_CHAT_TEMPLATE = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Sizes:
    """Of the model. The defaults make 0.2 million parameters."""

    vocabulary: int = 300  # of the model; the tokenizer's own is 263
    hidden_size: int = 64
    intermediate_size: int = 96
    layers: int = 3
    heads: int = 4
    key_heads: int = 2
    context: int = 4096  # most positions
    vision_hidden_size: int = 32
    vision_intermediate_size: int = 64
    vision_depth: int = 2
    vision_heads: int = 2
    tie_word_embeddings: bool = False
    initializer_range: float = 0.15
    text_type: str = "qwen2"  # InternVL's language model; qwen3 and llama are published, too
    tile: int = 28  # InternVL: side of a tile in pixels
    patch: int = 7  # InternVL: side of a patch in pixels


def write_random(model_type: str, folder: Path, seed: int = 0, **sizes: Any) -> None:
    """Write a random checkpoint of a supported `model_type`; `sizes` are fields of `Sizes`."""
    chosen = Sizes(**sizes)
    intern = model_type == "internvl"
    tokenizer = _internvl_tokenizer() if intern else _tokenizer(SPECIAL, CHAT_TEMPLATE)
    model = _internvl(tokenizer, chosen, seed) if intern else _qwen_vl(model_type, tokenizer, chosen, seed)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if intern:
        images = GotOcr2ImageProcessorPil(size={"height": chosen.tile, "width": chosen.tile}, **IMAGENET)
    else:
        images = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 280 * 280})
    images.save_pretrained(folder)


def _tokenizer(special: tuple[str, ...], chat_template: str, **more: Any) -> PreTrainedTokenizerFast:
    """Special tokens first, then one token a byte."""
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left", **more
    )
    fast.chat_template = chat_template
    return fast


def _internvl_tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer(INTERNVL_SPECIAL, INTERNVL_CHAT_TEMPLATE, extra_special_tokens=INTERNVL_TOKENS)


def _text_config(tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> dict[str, Any]:
    """What all language models' configs share."""
    return {
        "vocab_size": max(sizes.vocabulary, len(tokenizer)),
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_heads,
        "max_position_embeddings": sizes.context,
        "initializer_range": sizes.initializer_range,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _qwen_vl(model_type: str, tokenizer: PreTrainedTokenizerFast, sizes: Sizes, seed: int) -> Any:
    ids = tokenizer.convert_tokens_to_ids
    half = sizes.hidden_size // sizes.heads // 2  # M-RoPE shares the half head among time, row and column
    side = 3 * half // 8
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [half - 2 * side, side, side]}
    vision: dict[str, Any] = {
        "depth": sizes.vision_depth,
        "num_heads": sizes.vision_heads,
        "initializer_range": sizes.initializer_range,
    }
    if model_type == "qwen2_vl":
        config_class, model_class = Qwen2VLConfig, Qwen2VLForConditionalGeneration
        ratio = sizes.vision_intermediate_size // sizes.vision_hidden_size
        vision |= {"embed_dim": sizes.vision_hidden_size, "hidden_size": sizes.hidden_size, "mlp_ratio": ratio}
    elif model_type == "qwen2_5_vl":
        config_class, model_class = Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
        vision |= {
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "out_hidden_size": sizes.hidden_size,
            "window_size": 56,  # so that small pictures have several windows, too
            "fullatt_block_indexes": [sizes.vision_depth - 1],
        }
    else:
        raise ValueError(f"no random model of type {model_type!r}")
    config = config_class(
        text_config=_text_config(tokenizer, sizes) | {"rope_parameters": rope},
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    return _stirred(model_class(config))


def _internvl(tokenizer: PreTrainedTokenizerFast, sizes: Sizes, seed: int) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = _text_config(tokenizer, sizes) | {"model_type": sizes.text_type, "rope_parameters": rope}
    if sizes.text_type == "qwen3":
        text["head_dim"] = sizes.hidden_size // sizes.heads
    config = InternVLConfig(
        text_config=text,
        vision_config={
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "num_hidden_layers": sizes.vision_depth,
            "num_attention_heads": sizes.vision_heads,
            "image_size": [sizes.tile, sizes.tile],
            "patch_size": [sizes.patch, sizes.patch],
            "initializer_range": sizes.initializer_range,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(sizes.tile // sizes.patch) ** 2 // 4,  # four patches become one token
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    return _stirred(InternVLForConditionalGeneration(config))


@torch.no_grad()
def _stirred(model: Any) -> Any:
    """Norms, biases and position embeddings off their even start, so that a fault in any of them shows."""
    for parameter in model.parameters():
        if parameter.ndim == 1 or bool((parameter == 0).all()):
            parameter += 0.1 * torch.randn_like(parameter)
    return model
