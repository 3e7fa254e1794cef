"""The model card: README.md of a release, with the hub's metadata, scores, pictures and limits."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

from ruamel.yaml import YAML

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
LOADS = {
    "model": "`AutoModelForImageTextToText`, `AutoTokenizer` and `AutoImageProcessor` load the\nfolder, and"
    " `vllm serve FOLDER` serves it; `AutoProcessor` loads where torchvision is installed.",
    "adapter": "This is a LoRA adapter: `PeftModel.from_pretrained(base, FOLDER)` puts it on its base, and\n"
    "`vlmr1 merge FOLDER --base BASE --output DIR` makes one checkpoint of both, which `vllm serve DIR` serves.",
}
LIMITS = {
    "rec": "\nIt seldom says that nothing fits the expression.",
}
DRAWN = "\nIts training pictures were drawn by a program (`world` below): of photographs it learned nothing here."
PICTURES = {
    "accuracy": "Scores of the base, the supervised baselines and this model",
    "reward": "Reward over the steps of training",
    "examples": "Right answers above, wrong ones below; green is true, red is said",
}


def model_card(
    name: str, version: str, license: str, about: dict[str, Any], where: dict[str, Any], pictures: Iterable[str]
) -> str:
    """Markdown for people; the same facts as the manifest (see `manifest.About` and `Where`).

    `pictures` are their names in the release.
    """
    scores = about["scores"]
    tasks = list(dict.fromkeys(figures["task"] for figures in scores.values()))
    rows = [
        f"| {source} | {_judged(f)} | {_more(f)} | {f['parse_failure_rate']:.3f} | {f['n']} |"
        for source, f in scores.items()
    ]
    does = " and ".join(dict.fromkeys(TASKS[task][1] for task in tasks))
    shown = "\n".join(f"![{PICTURES[_stem(path)]}]({path})" for path in pictures)
    rewards = ", ".join(f"`{reward}` × {weight:g}" for reward, weight in about["rewards"].items())
    data = "\n".join(f"- `{path}`: `{digest}`" for path, digest in about["data"].items())
    drawn = DRAWN if about["params"].get("world") is not None else ""
    ask = ASK if tasks == ["rec"] and about["kind"] == "model" else ""
    return f"""---
{_metadata(name, version, license, about, tasks)}---
# {name}@{version}

A vision-language model that {does}, trained by GRPO with rule-based rewards.
{ask}{LOADS[about["kind"]]}{BOXES if {"rec", "ovd"} & set(tasks) else ""}

Base: {_base(about["base"])}. Rewards: {rewards}; accuracy is {" or ".join(f"`{one}`" for one in about["accuracy"])}.

| evaluation source | greedy [95 % interval] | more | parse failures | n |
|---|---|---|---|---|
{chr(10).join(rows)}

{shown}

## Limits

It answers the forms of question it was trained on, about pictures like those; the table's sources say how far that
carries. It was scored on one seed.{"".join(LIMITS.get(task, "") for task in tasks)}{drawn}

## Where it comes from

{_made(where)} Data (sha256):

{data}

`vlmr1 reproduce {name}@{version}` runs it again from the commit and compares.

## Parameters

```json
{json.dumps(about["params"], indent=1)}
```
"""


def _metadata(name: str, version: str, license: str, about: dict[str, Any], tasks: list[str]) -> str:
    """The hub's block at the head of a card. Data sets are named only in the hub's own terms, and ours are files."""
    base, adapter = about["base"], about["kind"] == "adapter"
    metadata: dict[str, Any] = {
        "license": license,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": list(dict.fromkeys(["grpo", "vlmr1", *(TASKS[task][0] for task in tasks)])),
    }
    if base["kind"] == "hub":
        metadata |= {"base_model": base["model"], "base_model_relation": "adapter" if adapter else "finetune"}
    metadata["model-index"] = [
        {"name": f"{name}@{version}", "results": [_result(*one) for one in about["scores"].items()]}
    ]
    written = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.dump(metadata, written)
    return written.getvalue()


def _result(source: str, f: dict[str, Any]) -> dict[str, Any]:
    measured = {"type": f["judged"], "name": TITLES[f["judged"]], "value": f[f["judged"]]}
    return {
        "task": {"type": "image-text-to-text"},
        "dataset": {"name": source, "type": source},
        "metrics": [measured],
    }


def _base(base: dict[str, Any]) -> str:
    at = f"{base['model']} at `{base['revision']}`"
    return {
        "built": "built from nothing and warmed up",
        "hub": at,
        "folder": f"the folder {base['model']} with digest `{base['revision']}`",
        "release": f"{base['model']}@{base['revision']}",
    }[base["kind"]]


def _made(where: dict[str, Any]) -> str:
    """Commit, machine and time in two sentences."""
    changed = ", ".join(where["changed"][:5]) + (" …" if len(where["changed"]) > 5 else "")
    dirty = f", with {changed} changed" if where["dirty"] else ""
    commit = f"commit `{where['commit']}`{dirty}" if where["commit"] else "commit not recorded"
    hardware = where["hardware"]
    accelerator = (hardware["training"] or {}).get("accelerator")
    machine = f"{hardware['system']}, {hardware['processors']} processors, {hardware['memory_gb']} GB"
    took = f"; training took {hardware['training']['wall_seconds']:g} s" if hardware["training"] else ""
    return f"Code: {commit}. Machine: {machine}{f', {accelerator}' if accelerator else ''}{took}."


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]


def _judged(f: dict[str, Any]) -> str:
    key = f["judged"]
    return f"{TITLES[key]} {f[key]:.3f} [{f[f'{key}_low']:.3f}, {f[f'{key}_high']:.3f}]"


def _more(f: dict[str, Any]) -> str:
    found = [f"{label} {f[key]:.3f}" for key, label in EXTRAS[f["judged"]].items() if key in f]
    found += [f"a constant answer {f['majority']:.3f}"] if "majority" in f else []
    return ", ".join(found)
