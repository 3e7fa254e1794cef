"""The think and answer blocks of a completion."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
_WANTED = ["think", "/think", "answer", "/answer"]


def blocks(completion: str) -> tuple[str | None, str | None, str, list[str]]:
    """(thinking, answer text, what stands for the answer, faults of shape).

    The last `<think>…</think>` and the last `<answer>…</answer>`, in any case, are taken, of nested ones the innermost;
    None where there is none. For the answer then stands what follows an answer block that is never closed, else what
    follows the thinking, else all of it.
    """
    faults: list[str] = []
    tags = [(m.group(1) + m.group(2).lower(), m.start(), m.end()) for m in _TAG.finditer(completion)]
    if [name for name, _, _ in tags] != _WANTED:
        named = " ".join(f"<{name}>" for name, _, _ in tags[:6]) or "none"
        faults.append(f"tags are not <think></think><answer></answer>: {named}")
    elif completion[: tags[0][1]].strip() or completion[tags[3][2] :].strip():
        faults.append("text outside the think and answer blocks")
    elif completion[tags[1][2] : tags[2][1]].strip():
        faults.append("text between the think and answer blocks")
    if any(completion[start:end] != completion[start:end].lower() for _, start, end in tags):
        faults.append("tags in capitals")

    thinking = _last_block(completion, tags, "think")
    text = _last_block(completion, tags, "answer")
    if text is not None:
        return thinking, text, text, faults
    opened = next((end for name, _, end in reversed(tags) if name == "answer"), None)
    faults.append("no closed answer block" + (": it is never closed" if opened is not None else ""))
    start = max([opened or 0] + [end for name, _, end in tags if name == "/think"])
    return thinking, None, completion[start:], faults


def _last_block(completion: str, tags: list[tuple[str, int, int]], name: str) -> str | None:
    """Text of the last `<name>…</name>`, or None. Tags of the other name in it are text."""
    own = [tag for tag in tags if tag[0].removeprefix("/") == name]
    for opened, closed in zip(own[-2::-1], own[:0:-1], strict=True):
        if (opened[0], closed[0]) == (name, f"/{name}"):
            return completion[opened[2] : closed[1]]
    return None
