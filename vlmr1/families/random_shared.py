"""What the small random checkpoints of all families share: sizes, a tokenizer of bytes, the language model's config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD = "<|endoftext|>"
ROPE = {"rope_type": "default", "rope_theta": 1e4}


@dataclass(frozen=True)
class Sizes:
    """Of the model. The defaults make 0.2 million parameters."""

    vocabulary: int = 300  # of the model; the tokenizers' own are some 30 less
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
    tile: int = 28  # InternVL, SmolVLM, Gemma 3: side of a tile in pixels
    patch: int = 7  # InternVL, SmolVLM, Gemma 3: side of a patch in pixels

    @property
    def head(self) -> int:
        return self.hidden_size // self.heads


@dataclass(frozen=True)
class Parts:
    """Of a checkpoint."""

    tokenizer: PreTrainedTokenizerFast
    model_class: Any
    config: Any
    images: Any
    ends: tuple[str, ...]  # as the generation config names them, the end of turn first


def tokenizer_of(
    special: tuple[str, ...], template: str, end: str, words: tuple[str, ...] = (), pad: str = PAD, **more: Any
) -> PreTrainedTokenizerFast:
    """Special tokens first, then whole words, then one token a byte."""
    names = [*special, *words, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(list(words))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=pad, padding_side="left", **more
    )
    fast.chat_template = template
    return fast


def text_of(tokenizer: PreTrainedTokenizerFast, sizes: Sizes, **more: Any) -> dict[str, Any]:
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
    } | more


def mrope(angles: int) -> dict[str, Any]:
    """M-RoPE, which shares a head's `angles` among time, row and column."""
    side = 3 * angles // 8
    return {**ROPE, "mrope_section": [angles - 2 * side, side, side]}
