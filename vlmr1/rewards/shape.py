"""Rewards for the shape of a completion. Left out on purpose: length and repetition, which come with detection."""

from __future__ import annotations

import re

from vlmr1.answers import Answer
from vlmr1.rewards import Reward

# Possessive throughout, so that no input makes it slow; a label may follow the box.
_NUMBERS = r"\s*+-?+\d++(?:\.\d++)?+\s*+(?:,\s*+-?+\d++(?:\.\d++)?+\s*+){3}"
_LABEL = r"(?:,\s*+\"label\"\s*+:\s*+\"[^\"\\]*+\"\s*+)?+"
_OBJECT = re.compile(rf"\s*+\{{\s*+\"bbox_2d\"\s*+:\s*+\[{_NUMBERS}\]\s*+{_LABEL}\}}\s*+")


def format_reward(answer: Answer) -> Reward:
    """1 for exactly one think block followed by one answer block that is one `{"bbox_2d": [x0, y0, x1, y1]}`, else 0.

    The REC form of VLM-R1's format reward, matched against the whole completion rather than searched for in it.
    """
    if answer.problems:
        return Reward(0.0, answer.text is not None, "; ".join(answer.problems))
    if answer.text is None or not _OBJECT.fullmatch(answer.text):
        return Reward(0.0, True, 'the answer is not one {"bbox_2d": [x0, y0, x1, y1]}')
    return Reward(1.0, True, "well formed")
