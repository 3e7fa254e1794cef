"""What each family's small random checkpoint is made of: a tokenizer with its tokens, a config, an image processor.

One function a family, named as its `model_type`. The tokenizers are bytes and special tokens, the chat templates say
what the published ones say for one turn of a user's. Left out on purpose: merges in the tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as tf
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from vlmr1.families.random_shared import ROPE, Parts, Sizes, mrope, text_of, tokenizer_of
from vlmr1.families.tiny import CHAT_TEMPLATE, SPECIAL

QWEN_ENDS = ("<|im_end|>", "<|endoftext|>")
# InternVL's names for its tokens, as its tokenizers carry them.
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "context_image_token": "<IMG_CONTEXT>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}
INTERNVL_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *INTERNVL_TOKENS.values())
# The published templates, too, write a line break after a picture.
INTERNVL_TEMPLATE = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
GLM_SPECIAL = (
    *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
)
GLM_WORDS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SMOLVLM_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<global-img>"),
    *("<end_of_utterance>", *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4))),
)
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA_SPECIAL = (
    *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
GEMMA_TEMPLATE = (
    "<bos>{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def _qwen(sizes: Sizes, kind: str, vision: dict[str, Any], pixels: tuple[int, int], **more: Any) -> Parts:
    """A Qwen of this kind; `pixels` are the fewest and the most of a picture."""
    tokenizer = tokenizer_of(SPECIAL, CHAT_TEMPLATE, "<|im_end|>")
    ids = tokenizer.convert_tokens_to_ids
    config = getattr(tf, f"{kind}Config")(
        text_config=text_of(tokenizer, sizes, rope_parameters=mrope(sizes.head // 2), **more),
        vision_config={
            "depth": sizes.vision_depth,
            "num_heads": sizes.vision_heads,
            "initializer_range": sizes.initializer_range,
            **vision,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels[0], "longest_edge": pixels[1]}, patch_size=config.vision_config.patch_size
    )
    return Parts(tokenizer, getattr(tf, f"{kind}ForConditionalGeneration"), config, images, QWEN_ENDS)


def _qwen2_vl(sizes: Sizes) -> Parts:
    ratio = sizes.vision_intermediate_size // sizes.vision_hidden_size
    vision = {"embed_dim": sizes.vision_hidden_size, "hidden_size": sizes.hidden_size, "mlp_ratio": ratio}
    return _qwen(sizes, "Qwen2VL", vision, (28 * 28, 280 * 280))


def _qwen2_5_vl(sizes: Sizes) -> Parts:
    vision = {
        "hidden_size": sizes.vision_hidden_size,
        "intermediate_size": sizes.vision_intermediate_size,
        "out_hidden_size": sizes.hidden_size,
        "window_size": 56,  # so that small pictures have several windows, too
        "fullatt_block_indexes": [sizes.vision_depth - 1],
    }
    return _qwen(sizes, "Qwen2_5_VL", vision, (28 * 28, 280 * 280))


def _qwen3_vl(sizes: Sizes) -> Parts:
    vision = {
        "hidden_size": sizes.vision_hidden_size,
        "intermediate_size": sizes.vision_intermediate_size,
        "out_hidden_size": sizes.hidden_size,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": list(range(sizes.vision_depth)),  # fed to as many of the language model's layers
    }
    return _qwen(sizes, "Qwen3VL", vision, (32 * 32, 320 * 320), head_dim=sizes.head)


def _internvl(sizes: Sizes) -> Parts:
    tokenizer = tokenizer_of(INTERNVL_SPECIAL, INTERNVL_TEMPLATE, "<|im_end|>", extra_special_tokens=INTERNVL_TOKENS)
    text = text_of(tokenizer, sizes, model_type=sizes.text_type, rope_parameters=ROPE)
    if sizes.text_type == "qwen3":
        text["head_dim"] = sizes.head
    config = tf.InternVLConfig(
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
    images = GotOcr2ImageProcessorPil(size={"height": sizes.tile, "width": sizes.tile}, **IMAGENET)
    return Parts(tokenizer, tf.InternVLForConditionalGeneration, config, images, QWEN_ENDS)


def _glm4v(sizes: Sizes) -> Parts:
    tokenizer = tokenizer_of(GLM_SPECIAL, GLM_TEMPLATE, "<|endoftext|>", GLM_WORDS)
    ids = tokenizer.convert_tokens_to_ids
    rope = {**mrope(sizes.head // 4), "partial_rotary_factor": 0.5}  # half of a head turns
    config = tf.Glm4vConfig(
        text_config=text_of(tokenizer, sizes, rope_parameters=rope),
        vision_config={
            "depth": sizes.vision_depth,
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "num_heads": sizes.vision_heads,
            "out_hidden_size": sizes.hidden_size,
            "image_size": 56,
            "initializer_range": sizes.initializer_range,
        },
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    images = Glm4vImageProcessorPil(size={"shortest_edge": 2 * 28 * 28, "longest_edge": 2 * 280 * 280})
    ends = ("<|user|>", "<|endoftext|>", "<|observation|>", "</answer>")
    return Parts(tokenizer, tf.Glm4vForConditionalGeneration, config, images, ends)


def _tiles(sizes: Sizes, kind: str, images_class: Any) -> Parts:
    """SmolVLM or Idefics3, whose pictures are up to three tiles a side."""
    tokenizer = tokenizer_of(SMOLVLM_SPECIAL, SMOLVLM_TEMPLATE, "<end_of_utterance>")
    config = getattr(tf, f"{kind}Config")(
        text_config=text_of(tokenizer, sizes, model_type="llama", rope_parameters=ROPE),
        vision_config={
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "num_hidden_layers": sizes.vision_depth,
            "num_attention_heads": sizes.vision_heads,
            "image_size": sizes.tile,
            "patch_size": sizes.patch,
            "initializer_range": sizes.initializer_range,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    images = images_class(size={"longest_edge": 3 * sizes.tile}, max_image_size={"longest_edge": sizes.tile})
    ends = ("<end_of_utterance>", "<|im_end|>")
    return Parts(tokenizer, getattr(tf, f"{kind}ForConditionalGeneration"), config, images, ends)


def _gemma3(sizes: Sizes) -> Parts:
    names = ("boi_token", "eoi_token", "image_token")  # as its tokenizers carry them
    tokenizer = tokenizer_of(
        GEMMA_SPECIAL,
        GEMMA_TEMPLATE,
        "<eos>",
        pad="<pad>",
        extra_special_tokens=dict(zip(names, GEMMA_SPECIAL[-3:], strict=True)),
    )
    kinds = ["sliding_attention"] * (sizes.layers - 1) + ["full_attention"]
    ids = tokenizer.convert_tokens_to_ids
    config = tf.Gemma3Config(
        text_config=text_of(
            tokenizer,
            sizes,
            head_dim=sizes.head,
            query_pre_attn_scalar=sizes.head,
            layer_types=kinds,
            sliding_window=24,  # shorter than a prompt
            tie_word_embeddings=sizes.tie_word_embeddings,
        ),
        vision_config={
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "num_hidden_layers": sizes.vision_depth,
            "num_attention_heads": sizes.vision_heads,
            "image_size": sizes.tile,
            "patch_size": sizes.patch,
            "vision_use_head": False,  # as published: nothing asks for one vector of a picture
        },
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
        initializer_range=sizes.initializer_range,
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    images = Gemma3ImageProcessorPil(size={"height": sizes.tile, "width": sizes.tile})
    return Parts(tokenizer, tf.Gemma3ForConditionalGeneration, config, images, ("<end_of_turn>", "<eos>"))


PARTS: dict[str, Callable[[Sizes], Parts]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "glm4v": _glm4v,
    "smolvlm": lambda sizes: _tiles(sizes, "SmolVLM", SmolVLMImageProcessorPil),
    "idefics3": lambda sizes: _tiles(sizes, "Idefics3", Idefics3ImageProcessorPil),
    "gemma3": _gemma3,
}
