"""What of a language model's config makes completions that share their prompt differ from those that do not.

Left out on purpose: attention sinks, which stand among the weights (`vlmr1.grpo.attention.sharing_breaks`).
"""

from __future__ import annotations

from typing import Any


def config_breaks(config: Any) -> str | None:
    """Why a model of this config cannot share prompts exactly; None where the config says nothing against it."""
    text = config.get_text_config()
    known = getattr(text, "layer_types", None)
    kinds = set(known or ["full_attention"]) - {"full_attention"}
    if kinds:
        return f"its layers are not all of full attention ({', '.join(sorted(kinds))})"
    if not known and getattr(text, "sliding_window", None):
        return "its attention slides over a window"
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logits_scaling", "attention_chunk_size"):
        if getattr(text, name, None):
            return f"its config has {name}"
    if getattr(text, "attention_dropout", 0.0):
        return "it drops attention weights at random"
    return None
