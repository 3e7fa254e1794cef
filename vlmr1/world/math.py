"""Math: questions about diagrams, in DynaMath's form.

    math/SPLIT.jsonl     question, answer, image, answer_type, subject, level, qid, varid
    math/images/SPLIT/…  PNG

`qid` is PROBLEM/FORM, one question; `varid` counts its variants: the same words, other numbers. Rows of one problem and
variant are twins: step_1, step_2 and whole share a picture, text_only has the facts in words and no picture (`image` is
""), vision_only has the question in the picture. `subject` is the family, `level` the form.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlmr1.sample import write_jsonl
from vlmr1.settings import MathSplit, MathWorld
from vlmr1.world.charts import HEIGHT, WIDTH
from vlmr1.world.draw import PAPER, TIRED, Canvas, Seen, Told, no_new_picture
from vlmr1.world.problems import FAMILIES, LETTERS, Problem, Question, Variant

IN_PICTURE = "Answer the question in the picture."
CAPTION = 28  # pixels below a diagram with its question in it


def lists(settings: MathWorld) -> dict[tuple[str, str | None], int]:
    """The list of every split, and its rows."""
    return {(f"{name}.jsonl", None): split.rows for name, split in settings.splits.items()}


def write_math(settings: MathWorld, seed: int, folder: Path, seen: Seen, told: Told) -> None:
    """Draw every split below `folder`, no picture that was `seen`.

    Raises ValueError where its families cannot give enough different diagrams.
    """
    told_before: set[str] = set()  # what is told in words alone must differ too
    for split, wanted in settings.splits.items():
        rng = random.Random(f"{seed}/math/{split}")
        (folder / "images" / split).mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        for number in range(1, wanted.questions + 1):
            family = wanted.families[(number - 1) % len(wanted.families)]
            vary = FAMILIES[family](rng)
            for variant in range(1, wanted.variants + 1):
                problem, picture = _example(rng, split, wanted, vary, seen, told_before)
                name = f"{split}/q{number:04d}_v{variant:02d}"
                for form in wanted.forms:
                    question, image = _asked(problem, form, name)
                    row: dict[str, Any] = {"question": _text(question), "answer": _answer(question), "image": image}
                    row["answer_type"] = "multiple choice" if question.choices else "float"
                    row |= {"subject": family, "level": form, "qid": f"{number}/{form}", "varid": variant}
                    rows.append(row)
                    if form == "vision_only":
                        drawn(problem, written=True).save(folder / "images" / image)
                    told(1)
                if set(wanted.forms) - {"text_only", "vision_only"}:
                    picture.save(folder / "images" / f"{name}.png")
        write_jsonl(folder / f"{split}.jsonl", rows)


def _example(
    rng: random.Random, split: str, wanted: MathSplit, vary: Variant, seen: Seen, told_before: set[str]
) -> tuple[Problem, Image.Image]:
    """A problem whose diagram was not drawn before, nor its facts told where they are to be told."""
    for _ in range(TIRED):
        problem = vary(rng)
        words = {f"{problem.facts} {problem.whole.text}"} if "text_only" in wanted.forms else set()
        if words & told_before:
            continue
        picture = drawn(problem)
        if seen.new(picture):
            told_before |= words
            return problem, picture
    raise no_new_picture("math", split, "fewer questions or variants, or other families")


def drawn(problem: Problem, written: bool = False) -> Image.Image:
    """The diagram, below it the question where that is to be `written` into the picture. RGB."""
    canvas = Canvas((WIDTH, HEIGHT + CAPTION * written))
    problem.diagram.draw(canvas)
    if written:
        canvas.box(0, HEIGHT, WIDTH, HEIGHT + CAPTION, PAPER)
        lines = [problem.written, _lettered(problem.whole.choices)] if problem.whole.choices else [problem.written]
        for i, line in enumerate(lines):
            canvas.text(WIDTH / 2, HEIGHT + CAPTION * (i + 0.5) / len(lines), line, 11)
    return canvas.done()


def _asked(problem: Problem, form: str, name: str) -> tuple[Question, str]:
    """What is asked in a form, and the picture it is asked about, "" for none."""
    whole = problem.whole
    if form == "text_only":
        return Question(f"{problem.facts} {whole.text}", whole.answer, whole.choices), ""
    if form == "vision_only":
        return Question(IN_PICTURE, whole.answer, whole.choices), f"{name}_vision.png"
    return (whole if form == "whole" else problem.steps[form == "step_2"]), f"{name}.png"


def _text(question: Question) -> str:
    """The words, the choices after them as DynaMath has them; what is in the picture is not said again."""
    if not question.choices or question.text == IN_PICTURE:
        return question.text
    return f"{question.text} choice: {_lettered(question.choices)}"


def _lettered(choices: Sequence[str]) -> str:
    return " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def _answer(question: Question) -> str:
    return LETTERS[question.choices.index(question.answer)] if question.choices else question.answer
