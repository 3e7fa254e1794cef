"""What the page asks and what it is shown: a question as a task's sample, and a completion as the task reads it.

Pictures are those that the page sent; nothing is opened by a name. Left out on purpose: questions of several turns.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vlmr1.answers import Answer, Found
from vlmr1.boxes import Size
from vlmr1.grpo.scoring import Scorer
from vlmr1.pictures import PictureFault, TooManyPixels, open_picture
from vlmr1.rewards import Reward
from vlmr1.rows import Row
from vlmr1.sample import PLACE, Sample
from vlmr1.sources.reading import expression_of
from vlmr1.tasks import TASKS, ovd

WEIGHTS = {"accuracy": 1.0, "format": 1.0}  # of params.yaml's grpo.rewards, as it comes
UNTRUE = ("format",)  # rewards that need no truth
PICTURES = {"rec": (1, 1), "ovd": (1, 1), "math": (1, 8), "gui": (2, 2)}  # fewest and most of a question
MOST_PIXELS, MOST_TOKENS = 50_000_000, 4096
FORMATS = "give a PNG, JPEG, WebP or BMP file"
ABOUT = "asked id 0: solution "  # how a task's sentences call the truth
SCORES = {  # what evaluation counts of an answer, in words: where it is 0, and where it is not
    "hit": ("no hit, for that needs an IoU above 0.5", "a hit, for the IoU is above 0.5"),
    "ap": ("an AP of 0, over IoU 0.50 to 0.95", "an AP of {:.3f}, over IoU 0.50 to 0.95"),
    "correct": ("wrong", "right"),
}
HINTS = {
    "rec": ("an expression, e.g. the red square", "[x0, y0, x1, y1] in pixels, or None"),
    "ovd": (
        "names between commas, e.g. red cross",
        '[{"bbox_2d": [x0, y0, x1, y1], "label": "…"}], or None',
    ),
    "math": ("a question", "the answer, e.g. 42 or B"),
    "gui": ("what was done between the two pictures, and the question", "the answer, e.g. No Defect"),
}


class Misasked(ValueError):
    """A fault in one field of the form, by whose name the page finds it."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True)
class Question:
    """One question as the page sends it."""

    sample: Sample  # its solution is empty where no truth was given
    pictures: tuple[Image.Image, ...]  # RGB
    temperature: float  # 0 is greedy
    longest: int  # tokens
    seed: int

    @property
    def prompt(self) -> str:
        return TASKS[self.sample.task].prompt(self.sample)


def about_tasks() -> dict[str, Any]:
    """What the page needs to know of the tasks."""
    return {
        name: {
            "rewards": list(task.METHODS),
            "text": HINTS[name][0],
            "truth": HINTS[name][1],
            "boxes": name in ("rec", "ovd"),
            "fewest": PICTURES[name][0],
            "most": PICTURES[name][1],
        }
        for name, task in TASKS.items()
    }


def question_of(sent: Mapping[str, Any]) -> Question:
    """The question in what the page sent. Raises Misasked with the field and the mend."""
    name, text = _text(sent, "task"), _text(sent, "text").strip()
    if name not in TASKS:
        raise Misasked("task", f"task: {name!r} is not known; one of {', '.join(TASKS)}")
    task = TASKS[name]
    sizes, pictures = _pictures(sent.get("pictures"), name)
    if not text.replace(PLACE, "").strip():
        raise Misasked("text", f"Write {HINTS[name][0]}.")
    method, truth = sent.get("reward") or task.METHODS[0], _text(sent, "truth").strip()
    if method not in task.METHODS:
        raise Misasked("reward", f"reward: {method!r} is not known for task {name}; one of {', '.join(task.METHODS)}")
    if PLACE in text and text.count(PLACE) != len(pictures):
        said = f"The question says {PLACE} {text.count(PLACE)} times and has {len(pictures)} pictures."
        raise Misasked("text", said)
    names = tuple(part.strip() for part in text.split(",") if part.strip()) if name == "ovd" else ()
    images = tuple(f"picture {number}" for number in range(1, len(pictures) + 1))
    problem = task.question(Row(0, images, (), name, method, text, asked=names))
    sample = Sample(0, images, problem, truth, name, method, "asked", "asked", sizes)
    if truth:
        try:
            task.truth(sample)
        except ValueError as error:
            raise Misasked("truth", f"{str(error).removeprefix(ABOUT)}.") from error
    temperature = _number(sent, "temperature", 0.0, 0, 2, (int, float))
    longest, seed = _number(sent, "longest", 256, 1, MOST_TOKENS), _number(sent, "seed", 1, 0, 2**31)
    return Question(sample, pictures, float(temperature), longest, seed)


def _text(sent: Mapping[str, Any], key: str) -> str:
    if not isinstance(sent.get(key, ""), str):
        raise Misasked(key, f"{key}: text is needed")
    return sent.get(key, "")


def _number(
    sent: Mapping[str, Any], key: str, default: float, least: int, most: int, kinds: Sequence[type] = (int,)
) -> Any:
    value = sent.get(key, default)
    if type(value) not in kinds or not least <= value <= most:
        raise Misasked(key, f"A {'' if float in kinds else 'whole '}number from {least} to {most:,} is needed.")
    return value


def _pictures(sent: Any, task: str) -> tuple[tuple[Size, ...], tuple[Image.Image, ...]]:
    """Sizes and pixels of the pictures, each the base64 of a file, as many as the task takes."""
    if not isinstance(sent, list) or not all(isinstance(one, str) for one in sent):
        raise Misasked("pictures", "pictures: a list is needed, each in base64")
    fewest, most = PICTURES[task]
    if not fewest <= len(sent) <= most:
        wanted = "a pair of pictures" if fewest == 2 else "one picture" if most == 1 else f"one to {most} pictures"
        raise Misasked(
            "pictures",
            f"The task {task} takes {wanted}; {len(sent) or 'none'} {'are' if len(sent) > 1 else 'is'} here.",
        )
    found, left = [], MOST_PIXELS
    for number, one in enumerate(sent, start=1):
        try:
            with _opened(base64.b64decode(one, validate=True), left) as picture:
                found.append(picture.convert("RGB"))
        except TooManyPixels as error:
            said = f"picture {number}: {error}; the pictures of a question may have {MOST_PIXELS:,} together"
            raise Misasked("pictures", said) from error
        except (PictureFault, binascii.Error) as error:
            raise Misasked("pictures", f"picture {number}: {error}; {FORMATS}") from error
        left -= found[-1].width * found[-1].height
    return tuple(picture.size for picture in found), tuple(found)


def size_of(content: bytes) -> Size:
    """(width, height) of the stored pixels in a picture file. Raises ValueError where it is none."""
    try:
        with _opened(content, MOST_PIXELS) as picture:
            return picture.size
    except PictureFault as error:
        raise ValueError(f"{error}; {FORMATS}") from error


@contextmanager
def _opened(content: bytes, most: int) -> Iterator[Image.Image]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        path.write_bytes(content)
        with open_picture(path, most) as picture:
            yield picture


def read(question: Question, completion: str, frame: Size, tokens: int | None) -> dict[str, Any]:
    """What the page shows of a completion. `frame` is the (width, height) in which the model speaks of boxes."""
    sample, total, judged = question.sample, None, None
    task = TASKS[sample.task]
    if sample.solution:
        scored = Scorer(WEIGHTS, [sample], "reward").judge(completion, sample, frame, [], tokens)
        answer, rewards, total = scored.answer, scored.rewards, scored.total
        judged = SCORES[task.JUDGED][scored.metric > 0].format(scored.metric)
    else:
        answer = task.answer(completion, sample, frame)
        rewards = task.rewards(answer, sample, UNTRUE)
    return _shown(answer, rewards) | {"total": total, "weights": WEIGHTS, "judged": judged, "tokens": tokens}


def _shown(answer: Answer, rewards: Mapping[str, Reward]) -> dict[str, Any]:
    return {
        "thinking": answer.thinking,
        "said": answer.said.strip(),
        "none": answer.none,
        "boxes": boxes_of(answer.found[: len(answer.boxes)]),
        "problems": list(answer.problems),
        "rewards": {name: vars(reward) for name, reward in rewards.items()},
    }


def text_of(sample: Sample) -> str:
    """What a person would type to ask a sample's question; of ovd the names between commas."""
    if sample.task == "rec":
        return expression_of(sample.problem)
    if sample.task == "ovd":
        return sample.problem.removeprefix(ovd.QUESTION).removesuffix(ovd.FORM).strip(" .")
    return sample.problem


def truth_boxes(sample: Sample) -> list[dict[str, Any]]:
    """The boxes of a sample's truth; none of a task without boxes, or without a truth."""
    if sample.task not in ("rec", "ovd") or not sample.solution:
        return []
    true = TASKS[sample.task].truth(sample)
    return boxes_of([Found(true, "")] if sample.task == "rec" and true else true or [])


def boxes_of(found: Any) -> list[dict[str, Any]]:
    return [{"box": [round(v, 2) for v in one.box], "label": one.label} for one in found]
