"""Answers drawn on their pictures, right ones above, wrong ones below; boxes as boxes, words as words beneath.

Same inputs, same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vlmr1.boxes import Box
from vlmr1.measures import MEASURES, right
from vlmr1.pictures import open_picture
from vlmr1.sample import PLACE, Sample, Source
from vlmr1.tasks import TASKS, ovd, rec

TILE = 224  # pixels of the longer side of a drawn picture
LINE = 18  # pixels of a line of words
WIDE = 38  # characters of a line
TRUE, SAID = (0, 150, 0), (220, 0, 0)


def examples(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]], sources: Mapping[str, Source], count: int, path: Path
) -> None:
    """The first right answers (above) and wrong ones (below) of a policy, one source after another."""
    samples = {name: {sample.id: sample for sample in source.samples} for name, source in sources.items()}
    rows = []
    for good in (True, False):
        queues = [[(name, p) for p in found if _good(p) == good] for name, found in predictions.items()]
        turns = [queue[i] for i in range(count) for queue in queues if i < len(queue)]
        rows.append(turns[:count])
    tiles = [[_tile(sources[name], samples[name][p["index"]], p) for name, p in row] for row in rows]
    heights = [34 + max((tile.height for tile in row), default=0) for row in tiles]
    sheet = Image.new("RGB", (max(1, count) * (TILE + 12) + 12, sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, title, top in zip(tiles, ("right", "wrong"), (0, heights[0]), strict=True):
        legend = "green is the truth, red the answer" if row else "none"
        pen.text((12, top + 6), f"{title}: {legend}", fill="black", font=_font(13))
        for c, tile in enumerate(row):
            sheet.paste(tile, (12 + c * (TILE + 12), top + 28))
    sheet.save(path)


def _judged(prediction: Mapping[str, Any]) -> str:
    return next(name for name in MEASURES if name in prediction)


def _good(prediction: Mapping[str, Any]) -> bool:
    name = _judged(prediction)
    return right(name, prediction[name])


def _tile(source: Source, sample: Sample, prediction: Mapping[str, Any]) -> Image.Image:
    """The sample's pictures side by side, boxes drawn on the first, what was asked, said and true below."""
    pictures = [_opened(path) for path in source.pictures(sample)]
    scale = TILE / max((sum(p.width for p in pictures), *(p.height for p in pictures))) if pictures else 1.0
    shown = [
        p.resize((max(1, int(p.width * scale)), max(1, round(p.height * scale))), Image.Resampling.NEAREST)
        for p in pictures
    ]
    true, said = _boxes(sample, prediction)
    if shown:
        pen = ImageDraw.Draw(shown[0])
        for right_one in true:
            _outline(pen, [v * scale for v in right_one], TRUE)
        for answered in said:
            _outline(pen, _drawable([v * scale for v in answered], shown[0].size), SAID)
    lines = _lines(source.name, sample, prediction)
    height = max((p.height for p in shown), default=0)
    tile = Image.new("RGB", (TILE, height + 8 + LINE * len(lines)), "white")
    left = 0
    for picture in shown:
        tile.paste(picture, (left, 0))
        left += picture.width
    pen = ImageDraw.Draw(tile)
    for i, (line, colour) in enumerate(lines):
        pen.text((0, height + 4 + LINE * i), _short(line, WIDE), fill=colour, font=_font(12))
    return tile


def _opened(path: Path) -> Image.Image:
    with open_picture(path) as raw:
        return raw.convert("RGB")


def _boxes(sample: Sample, prediction: Mapping[str, Any]) -> tuple[list[Box], list[Sequence[float]]]:
    """True boxes and answered ones, in pixels of the stored picture."""
    if sample.task == "rec":
        truth = rec.truth(sample)
        return [truth] if truth else [], [prediction["box"]] if prediction["box"] else []
    if sample.task == "ovd":
        return [one.box for one in ovd.truth(sample)], list(prediction["boxes"])
    return [], []


def _lines(source: str, sample: Sample, prediction: Mapping[str, Any]) -> list[tuple[str, str | tuple[int, int, int]]]:
    """The words below a picture, each line with its colour."""
    name = source.replace("_", " ")
    if sample.task == "rec":
        score = f"IoU {prediction['iou']:.2f}" if prediction["parsed"] else "no box could be read"
        return [(sample.problem.rpartition(": ")[2], "black"), (f"{name}; {score}", "black")]
    if sample.task == "ovd":
        asked = sample.problem.removeprefix(ovd.QUESTION).removesuffix(ovd.FORM).strip(" .")
        said = ", ".join(prediction["labels"]) or ("none" if prediction["parsed"] else "nothing could be read")
        labels = ", ".join(one.label for one in ovd.truth(sample)) or "none"
        return [(asked, "black"), (labels, TRUE), (said, SAID), (f"{name}; AP {prediction['ap']:.2f}", "black")]
    asked = " ".join(sample.problem.replace(PLACE, " ").split())
    question = [(asked[at : at + WIDE], "black") for at in range(0, min(len(asked), 3 * WIDE), WIDE)]
    return [*question, (str(TASKS[sample.task].truth(sample)), TRUE), (prediction["said"], SAID), (name, "black")]


def _outline(pen: Any, box: Sequence[float], colour: tuple[int, int, int]) -> None:
    """A box in a colour between two white lines, seen on any ground."""
    pen.rectangle(list(box), outline="white", width=4)
    x0, y0, x1, y1 = box
    if x1 - x0 > 4 and y1 - y0 > 4:
        pen.rectangle([x0 + 1, y0 + 1, x1 - 1, y1 - 1], outline=colour, width=2)


def _drawable(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """An answered box cut to the picture; one wholly outside becomes a dot on its border."""
    x = [min(max(v, 0), size[0] - 1) for v in (box[0], box[2])]
    y = [min(max(v, 0), size[1] - 1) for v in (box[1], box[3])]
    return [x[0], y[0], x[1], y[1]]


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
