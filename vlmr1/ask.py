"""Ask a checkpoint about one picture. The prompt and the reading of the answer are the task's, as in training and
evaluation: of rec where something is, of ovd where several things are, of math a question.

Left out on purpose: gui, whose questions are about two pictures."""

from __future__ import annotations

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
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.sources.reading import shown
from vlmr1.tasks import TASKS

LONGEST = 256  # tokens of an answer


def ask(checkpoint: Path, picture: Path, text: str, task: str = "rec") -> tuple[str, Answer]:
    """The greedy completion, and its reading with boxes in the picture's own pixels.

    `text` is an expression for rec, names between commas for ovd, a question for math. Raises ValueError for a folder
    that is no checkpoint and FileNotFoundError for a picture that is not there.
    """
    if not picture.is_file():
        raise FileNotFoundError(f"{picture}: no such picture")
    if not (checkpoint / "config.json").is_file():
        raise ValueError(f"{checkpoint}: no checkpoint folder; `vlmr1 pull NAME@VERSION --to DIR` lands one")
    family = load_family(checkpoint, None)
    device = torch.device(look().kind)
    model = family.load_model(checkpoint, torch.float32).to(device)
    policy = Policy(model, model, family, 1.0, prepare(model, family, True) is None, device)
    with open_picture(picture) as image:
        asked = TASKS[task]
        problem = asked.question(_row(task, picture, text))
        sample = Sample(0, (picture.name,), problem, "", task, asked.METHODS[0], "asked", "asked", (image.size,))
        prompt = family.encode(asked.prompt(sample), [image], [str(picture)])
    ((ids,),) = sample_completions(policy, [prompt], 1, Sampling(0.0, LONGEST), [0])
    completion = family.decode(ids)
    return completion, asked.answer(completion, sample, prompt.size)


def _row(task: str, picture: Path, text: str) -> Row:
    names = tuple(name.strip() for name in text.split(",")) if task == "ovd" else ()
    return Row(0, (picture.name,), (), task, TASKS[task].METHODS[0], text, asked=names)


def said(answer: Answer, task: str) -> list[str]:
    """The answer in lines: its boxes with their labels, its words, or what was wrong with it."""
    if task == "math":
        return [f"answer {answer.said.strip()}" if answer.said.strip() else f"no answer: {'; '.join(answer.problems)}"]
    found = () if answer.text is None else answer.found if task == "ovd" else answer.found[:1]
    if found:
        return [f"box {[round(v, 1) for v in one.box]} {one.label}".rstrip() for one in found]
    if answer.none:
        return ["no box: it says that there is none"]
    words = f"; it says {shown(answer.said.strip())}, --task math reads words" if answer.said.strip() else ""
    return [f"no box: {'; '.join(answer.problems) or 'none in the answer'}{words}"]


def draw(picture: Path, answer: Answer, target: Path) -> None:
    """Save the picture with the answered boxes drawn in red."""
    with open_picture(picture) as image:
        drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    for box in answer.boxes:
        pen.rectangle(box, outline=(220, 0, 0), width=2)
    drawn.save(target)
