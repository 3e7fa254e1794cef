"""The model card: README.md of a release, with the hub's metadata, scores and limits."""

from __future__ import annotations

import json
from typing import Any


def model_card(name: str, version: str, about: dict[str, Any], where: dict[str, Any]) -> str:
    """Markdown for people; the same facts as the manifest."""
    scores = about["scores"]
    rows = [
        f"| {source} | {figures['acc_0.5']:.3f} [{figures['acc_0.5_low']:.3f}, {figures['acc_0.5_high']:.3f}]"
        f" | {figures['mean_iou']:.3f} | {figures['parse_failure_rate']:.3f} | {figures['n']} |"
        for source, figures in scores.items()
    ]
    data = "\n".join(f"- `{folder}`: `{digest}`" for folder, digest in about["data_sha256"].items())
    commit = where["commit"] or "not recorded"
    dirty = " with uncommitted changes" if where["dirty"] else ""
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
license: apache-2.0
tags: [grpo, vlmr1, referring-expression-comprehension]
---
# {name}@{version}

A vision-language model that answers a referring expression with a box, trained by GRPO with rule-based rewards
(IoU and format). Ask it with `vlmr1 ask FOLDER picture.png "the red square"`: that is the prompt and the reading of the
answer it was trained with. `AutoModelForImageTextToText`, `AutoTokenizer` and `AutoImageProcessor` load the folder;
`AutoProcessor` does where torchvision is installed. Boxes are `[x0, y0, x1, y1]` in pixels of the resized input, whose
sides are multiples of 28.

Base: {about["base"]}.

| evaluation source | Acc@0.5, greedy [95 % Wilson] | mean IoU | parse failures | n |
|---|---|---|---|---|
{chr(10).join(rows)}

Code: commit `{commit}`{dirty}. Data (sha256 of each file's sha256):

{data}

## Limits

It answers one question form, about pictures like those it was trained on; the table's sources say how far that
carries. It was scored on one seed. It always gives a box, also where nothing fits the expression.

## Parameters

```json
{json.dumps(about["params"], indent=1)}
```
"""
