"""A tiny model of the real class `Qwen2_5_VLForConditionalGeneration`, built from nothing, that learns on a CPU.

Random weights, a tokenizer trained on the corpus at hand, the ordinary image processor and a chat template.
Two choices make it learn in seconds: every integer of the picture's frame is one token, and the rows of those
tokens start as shared sine and cosine features, so that near numbers start alike.
Left out on purpose: a system message, which would cost tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

if TYPE_CHECKING:
    from vlmr1.settings import TinyModel

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NUMBERS = 225  # 0 to 224: pictures of up to 224 pixels a side
PERIODS = (7, 14, 28, 56, 112, 224, 448, 896)  # pixels, of the numbers' sine and cosine features
NUMBER_SCALE = 0.1
# Tags and the answer's brackets are one token each, so that a completion is short.
MARKS = ("<think>", "</think>", "<answer>", "</answer>", '{"bbox_2d":[', "]}")
PIECES = r" ?\p{L}+|\s+|."  # a word takes the space before it
ROLES = ("user", "assistant")  # every chat says them, so the tokenizer learns them whole


def build_tokenizer(corpus: Iterable[str], phrases: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the corpus; each number and each fixed phrase of the prompt is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - NUMBERS - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*ROLES, *corpus], trainer)
    tokenizer.add_tokens([str(n) for n in range(NUMBERS)] + [*MARKS, *phrases])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_image_processor(max_pixels: int) -> Qwen2VLImageProcessorPil:
    """The family's ordinary image processor with a small picture."""
    return Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": max_pixels})


def build_model(tokenizer: PreTrainedTokenizerFast, sizes: TinyModel, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights from a seed, under a million parameters at the default sizes."""
    ids = tokenizer.convert_tokens_to_ids
    half_head = sizes.hidden_size // sizes.heads // 2
    side = (half_head - 2) // 2
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": sizes.hidden_size,
            "intermediate_size": sizes.intermediate_size,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.heads,
            "max_position_embeddings": 2048,
            "initializer_range": sizes.initializer_range,
            # A small base: the default of a million hardly tells apart the rows of a picture of 4 x 4 tokens.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10.0,
                "mrope_section": [half_head - 2 * side, side, side],
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": sizes.vision_depth,
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "num_heads": sizes.vision_heads,
            "out_hidden_size": sizes.hidden_size,
            "fullatt_block_indexes": list(range(sizes.vision_depth)),
            "initializer_range": sizes.initializer_range,
            "rope_parameters": {"rope_type": "axial", "rope_theta": 1e4},  # as published: servers assume it
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [ids("<|im_end|>"), ids("<|endoftext|>")]
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    _order_numbers(model, [ids(str(n)) for n in range(NUMBERS)])
    return model


@torch.no_grad()
def _order_numbers(model: Qwen2_5_VLForConditionalGeneration, number_ids: list[int]) -> None:
    """Start the numbers' rows of embedding and head from the same sine and cosine features of their value."""
    values = torch.arange(len(number_ids), dtype=torch.float32)  # (N,)
    angles = 2 * math.pi * values[:, None] / torch.tensor(PERIODS)  # (N, 8)
    features = torch.cat([angles.sin(), angles.cos()], dim=1)  # (N, 16)
    rows = model.get_input_embeddings().weight  # (V, H)
    mixing = torch.randn(features.shape[1], rows.shape[1])  # (16, H)
    ordered = NUMBER_SCALE * features @ mixing / math.sqrt(len(PERIODS))  # (N, H)
    for weight in {id(w): w for w in (rows, model.get_output_embeddings().weight)}.values():
        weight[number_ids] = ordered
