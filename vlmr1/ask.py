"""Ask a checkpoint about one picture: where is what this sentence describes? The prompt and the reading of the answer
are those of training and evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import ImageDraw

from vlmr1.answers import Answer
from vlmr1.device import look
from vlmr1.families import load_family
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.pictures import open_picture
from vlmr1.sample import Sample
from vlmr1.tasks import rec

LONGEST = 256  # tokens of an answer
QWEN_MOST = 12_845_056  # pixels, where the checkpoint does not say: Qwen2.5-VL's own bound


def ask(checkpoint: Path, picture: Path, expression: str) -> tuple[str, Answer]:
    """The greedy completion, and its reading with boxes in the picture's own pixels.

    Raises ValueError for a folder that is no checkpoint and FileNotFoundError for a picture that is not there.
    """
    if not picture.is_file():
        raise FileNotFoundError(f"{picture}: no such picture")
    config = checkpoint / "preprocessor_config.json"
    if not config.is_file():
        raise ValueError(f"{checkpoint}: no checkpoint folder; `vlmr1 pull NAME@VERSION --to DIR` lands one")
    family = load_family(
        checkpoint, json.loads(config.read_text(encoding="utf-8")).get("size", {}).get("longest_edge", QWEN_MOST)
    )
    device = torch.device(look().kind)
    model = family.load_model(checkpoint, torch.float32).to(device)
    policy = Policy(model, model, family, 1.0, prepare(model, True) is None, device)
    with open_picture(picture) as image:
        problem, size = rec.problem(expression), image.size
        sample = Sample(0, (picture.name,), problem, "[]", "rec", "iou", "asked", "asked", (size,))
        prompt = family.encode(rec.prompt(sample), [image], [str(picture)])
    ((ids,),) = sample_completions(policy, [prompt], 1, Sampling(0.0, LONGEST), [0])
    completion = family.decode(ids)
    return completion, rec.answer(completion, sample, prompt.size)


def draw(picture: Path, answer: Answer, target: Path) -> None:
    """Save the picture with the answered boxes drawn in red."""
    with open_picture(picture) as image:
        drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    for box in answer.boxes:
        pen.rectangle(box, outline=(220, 0, 0), width=2)
    drawn.save(target)
