"""Rewards for the shape of a completion: its format, its length, what it repeats."""

from __future__ import annotations

import math
import re

from vlmr1.answers import Answer
from vlmr1.rewards import Reward

# Possessive throughout, so that no input makes it slow.
_NUMBERS = re.compile(r"\[\s*+-?+\d++(?:\.\d++)?+\s*+(?:,\s*+-?+\d++(?:\.\d++)?+\s*+){3}\]")
_BETWEEN = re.compile(r"</think>\s*+<answer>")
_WORD = re.compile(r"\w+|[^\w\s]")
CORRECT = 0.7  # accuracy from which an answer counts as correct for `length`
LONGEST = 1024  # tokens from which length costs no more
GRAM = 6  # words


def format_reward(said: Answer) -> Reward:
    """1 for a think block, perhaps white space, and an answer block that are the whole completion, else 0.

    What stands inside the blocks is free, as in VLM-R1's format reward.
    """
    text = said.completion
    between = _BETWEEN.search(text, len("<think>"))
    if not text.startswith("<think>") or not text.endswith("</answer>") or between is None:
        return Reward(0.0, said.text is not None, "; ".join(said.shape) or "not <think>…</think> <answer>…</answer>")
    if between.end() > len(text) - len("</answer>"):
        return Reward(0.0, said.text is not None, "the answer block opens as it closes")
    return Reward(1.0, True, "well formed")


def rec_format_reward(said: Answer) -> Reward:
    """1 for exactly one think block followed by one answer block with `{… [x0, y0, x1, y1] …}` in it, else 0.

    `None`, the answer where there is no target, is as well formed. The REC form of VLM-R1's format reward, with the
    blocks matched against the whole completion rather than searched for in it.
    """
    if said.shape:
        return Reward(0.0, said.text is not None, "; ".join(said.shape))
    inside = said.text or ""
    opened, closed = inside.find("{"), inside.rfind("}")
    if inside.strip() == "None" or (0 <= opened < closed and _NUMBERS.search(inside, opened, closed)):
        return Reward(1.0, True, "well formed")
    return Reward(0.0, True, 'no {"bbox_2d": [x0, y0, x1, y1]} in the answer')


def length_reward(said: Answer, accuracy: float) -> Reward:
    """In [−0.5, 1]: a correct answer (accuracy ≥ 0.7) falls from 1 to 0.5 with its length, a wrong one from 0 to −0.5.

    Formula: max − (max − min)·(1 − cos(π·min(n, 1024)/1024))/2 over n tokens, the cosine reward of arXiv 2502.03373.
    n is the model's own count where `Answer.tokens` has it, else words and signs are counted.
    """
    n = said.tokens if said.tokens is not None else len(_WORD.findall(said.completion))
    top = 1.0 if accuracy >= CORRECT else 0.0
    value = top - 0.5 * (1 - math.cos(math.pi * min(n, LONGEST) / LONGEST)) / 2
    return Reward(value, True, f"{n} tokens of a {'correct' if top else 'wrong'} answer")


def repetition_reward(said: Answer) -> Reward:
    """−(1 − distinct / all), in [−1, 0], over the boxes with labels of a list, else over the completion's word 6-grams.

    A list is fenced, or holds labels. Fewer than six words repeat nothing. Formula: the repetition penalty of
    arXiv 2502.03373, with the boxes of a detection in place of words as in VLM-R1.
    """
    boxes = [*said.found, *(one for _, one in said.refused)]
    if boxes and (any(one.label for one in boxes) or "```" in said.said):
        total, distinct, what = len(boxes), len(set(boxes)), "boxes"
    else:
        words = said.completion.lower().split()
        total, what = max(0, len(words) - GRAM + 1), f"{GRAM}-grams"
        distinct = len({tuple(words[i : i + GRAM]) for i in range(total)})
    value = distinct / total - 1.0 if total else 0.0
    return Reward(value, True, f"{distinct} distinct of {total} {what}")
