"""The model card: README.md of a release, with the hub's metadata, scores and limits."""

from __future__ import annotations

import json
from typing import Any

from vlmr1.measures import EXTRAS, TITLES

TASKS = {  # by task: tag of the hub, what the model does
    "rec": ("referring-expression-comprehension", "answers a referring expression with a box"),
    "ovd": ("open-vocabulary-detection", "answers a list of names with every box of each, or None"),
    "math": ("visual-question-answering", "answers questions about diagrams with a number, a word or a letter"),
    "gui": ("visual-question-answering", "names the defect that two screenshots and the action between them show"),
}
BOXES = " Boxes are `[x0, y0, x1, y1]` in pixels of the resized input, whose\nsides are multiples of 28."
ASK = (
    'Ask it with `vlmr1 ask FOLDER picture.png "the red square"`: that is the prompt and the reading of the\n'
    "answer it was trained with. "
)
LIMITS = {
    "rec": "\nIt seldom says that nothing fits the expression.",
}


def model_card(name: str, version: str, about: dict[str, Any], where: dict[str, Any]) -> str:
    """Markdown for people; the same facts as the manifest. `about["scores"]` has each source's greedy figures."""
    scores = about["scores"]
    tasks = list(dict.fromkeys(figures["task"] for figures in scores.values()))
    rows = [
        f"| {source} | {_judged(f)} | {_more(f)} | {f['parse_failure_rate']:.3f} | {f['n']} |"
        for source, f in scores.items()
    ]
    tags = ", ".join(dict.fromkeys(["grpo", "vlmr1", *(TASKS[task][0] for task in tasks)]))
    does = " and ".join(dict.fromkeys(TASKS[task][1] for task in tasks))
    data = "\n".join(f"- `{folder}`: `{digest}`" for folder, digest in about["data_sha256"].items())
    commit = where["commit"] or "not recorded"
    dirty = " with uncommitted changes" if where["dirty"] else ""
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
license: apache-2.0
tags: [{tags}]
---
# {name}@{version}

A vision-language model that {does}, trained by GRPO with rule-based rewards.
{ASK if tasks == ["rec"] else ""}`AutoModelForImageTextToText`, `AutoTokenizer` and `AutoImageProcessor` load the
folder; `AutoProcessor` does where torchvision is installed.{BOXES if {"rec", "ovd"} & set(tasks) else ""}

Base: {about["base"]}.

| evaluation source | greedy [95 % interval] | more | parse failures | n |
|---|---|---|---|---|
{chr(10).join(rows)}

Code: commit `{commit}`{dirty}. Data (sha256 of each file's sha256):

{data}

## Limits

It answers the forms of question it was trained on, about pictures like those; the table's sources say how far that
carries. It was scored on one seed.{"".join(LIMITS.get(task, "") for task in tasks)}

## Parameters

```json
{json.dumps(about["params"], indent=1)}
```
"""


def _judged(f: dict[str, Any]) -> str:
    key = f["judged"]
    return f"{TITLES[key]} {f[key]:.3f} [{f[f'{key}_low']:.3f}, {f[f'{key}_high']:.3f}]"


def _more(f: dict[str, Any]) -> str:
    found = [f"{label} {f[key]:.3f}" for key, label in EXTRAS[f["judged"]].items() if key in f]
    found += [f"a constant answer {f['majority']:.3f}"] if "majority" in f else []
    return ", ".join(found)
