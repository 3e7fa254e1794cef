"""Questions to a server as training has them, and whether it reads them so: for evaluation and for rollouts.

Pictures go as training resizes them, tokens that are never sampled are barred, and no sampling of the server's own
making takes place. A server whose prompt is not, token for token, the one of training is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vlmr1.families.base import Family, Prompt
from vlmr1.sample import Sample
from vlmr1.serving.messages import Reply, Request
from vlmr1.tasks import TASKS


def question(family: Family, sample: Sample, pictures: Sequence[Image.Image], **more: Any) -> Request:
    """A sample's request; `more` are fields of `Request`, such as the number of completions."""
    return Request(
        TASKS[sample.task].prompt(sample),
        tuple(family.seen(picture) for picture in pictures),
        extra={"logit_bias": {str(token): -100 for token in family.never_sampled}},
        **more,
    )


def neutral(family: Family) -> dict[str, Any]:
    """The ends of training, and no sampling of the server's own making, e.g. a penalty that a checkpoint names."""
    return {"stop_token_ids": tuple(family.end_ids), "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}


def check_prompt(row: str, prompt: Prompt, reply: Reply, max_pixels: int, token_for_token: bool = False) -> None:
    """Raises ValueError where the server read another prompt than training, or does not say which though it must."""
    ids = reply.prompt_token_ids
    if token_for_token and ids is None:
        raise ValueError(f"{row}: the server does not give the prompt's token ids; serve with vLLM, by vlmr1 serve")
    if reply.prompt_tokens not in (None, len(prompt.ids)) or ids not in (None, tuple(prompt.ids)):
        raise ValueError(
            f"{row}: the server reads a prompt of {reply.prompt_tokens} tokens that is not training's of"
            f" {len(prompt.ids)}; serve the checkpoint with its own chat template and max_pixels {max_pixels}"
        )


def seed_of(key: object) -> int:
    """A request's seed, 31 bits, from what names it."""
    return int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:4], "big") >> 1
