"""The report's pictures as PNG: accuracies with intervals, curves of training, answers drawn on their pictures.

Same inputs, same bytes. Left out on purpose: anything interactive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image, ImageDraw, ImageFont

from vlmr1.boxes import Box
from vlmr1.policies import LABELS

COLOURS = {"base": "#8c8c8c", "sft-samples": "#7fb3d5", "sft-compute": "#2471a3", "grpo": "#d35400"}
TILE = 224  # pixels of the longer side of a drawn picture
TRUE, SAID = (0, 150, 0), (220, 0, 0)
plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def accuracy(metrics: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Acc@0.5 of every policy on every source, greedy above, sampled below, with Wilson intervals."""
    sources = list(next(iter(metrics.values())))
    figure, axes = plt.subplots(2, 1, figsize=(1.6 + 1.35 * len(sources), 5.4), sharex=True, sharey=True)
    width = 0.8 / len(metrics)
    for axis, way in zip(axes, ("greedy", "sampled"), strict=True):
        for i, (policy, figures) in enumerate(metrics.items()):
            values = [figures[s][way]["acc_0.5"] for s in sources]
            below = [figures[s][way]["acc_0.5"] - figures[s][way]["acc_0.5_low"] for s in sources]
            above = [figures[s][way]["acc_0.5_high"] - figures[s][way]["acc_0.5"] for s in sources]
            places = [x + (i - (len(metrics) - 1) / 2) * width for x in range(len(sources))]
            axis.bar(
                places,
                values,
                width * 0.92,
                yerr=[below, above],
                capsize=2,
                color=COLOURS[policy],
                error_kw={"lw": 0.8},
                label=LABELS[policy],
            )
        axis.set_ylabel(f"Acc@0.5, {way}")
        axis.set_ylim(0, 1.02)
    axes[1].set_xticks(range(len(sources)), [s.replace("_", " ") for s in sources])
    axes[0].legend(ncols=len(metrics), loc="upper center", bbox_to_anchor=(0.5, 1.18), frameon=False)
    save(figure, path)


def curves(rows: Sequence[Mapping[str, float]], keys: Mapping[str, str], label: str, path: Path) -> None:
    """Figures of training by step: each step faint, the mean of the last tenth of the run bold."""
    figure, axis = plt.subplots(figsize=(5.6, 3.0))
    span = max(1, len(rows) // 10)
    steps = [row["step"] for row in rows]
    for i, (key, name) in enumerate(keys.items()):
        values = [row[key] for row in rows]
        smooth = [sum(values[max(0, k - span + 1) : k + 1]) / min(span, k + 1) for k in range(len(values))]
        axis.plot(steps, values, color=f"C{i}", alpha=0.25, lw=0.8)
        axis.plot(steps, smooth, color=f"C{i}", lw=1.8, label=name)
    axis.set_xlabel("step")
    axis.set_ylabel(label)
    if len(keys) > 1:
        axis.legend(frameon=False)
    save(figure, path)


def examples(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    locate: Callable[[str, Mapping[str, Any]], Path],
    truth: Callable[[str, Mapping[str, Any]], Box],
    count: int,
    path: Path,
) -> None:
    """The first hits (above) and misses (below) of a policy, one source after another: truth green, answer red."""
    rows = []
    for hit in (True, False):
        queues = [[(source, p) for p in found if p["hit"] == hit] for source, found in predictions.items()]
        turns = [queue[i] for i in range(count) for queue in queues if i < len(queue)]
        rows.append(turns[:count])
    tiles = [[_tile(locate(s, p), truth(s, p), p, s) for s, p in row] for row in rows]
    heights = [34 + max((t.height for t in row), default=0) for row in tiles]
    sheet = Image.new("RGB", (max(1, count) * (TILE + 12) + 12, sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, title, top in zip(tiles, ("hits", "misses"), (0, heights[0]), strict=True):
        legend = "green is the truth, red the answer" if row else "none"
        pen.text((12, top + 6), f"{title}: {legend}", fill="black", font=_font(13))
        for c, tile in enumerate(row):
            sheet.paste(tile, (12 + c * (TILE + 12), top + 28))
    sheet.save(path)


def _tile(picture: Path, truth: Box, prediction: Mapping[str, Any], source: str) -> Image.Image:
    """A picture enlarged, both boxes drawn, with what was asked and how it scored below."""
    with Image.open(picture) as raw:
        image = raw.convert("RGB")
    scale = TILE / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    _outline(pen, [v * scale for v in truth], TRUE)
    if prediction["box"] is not None:
        _outline(pen, _drawable([v * scale for v in prediction["box"]], image.size), SAID)
    tile = Image.new("RGB", (TILE, image.height + 46), "white")
    tile.paste(image, (0, 0))
    words = prediction["problem"].rpartition(": ")[2]
    score = f"IoU {prediction['iou']:.2f}" if prediction["parsed"] else "no box could be read"
    pen = ImageDraw.Draw(tile)
    for i, line in enumerate((_short(words, 38), f"{source.replace('_', ' ')}; {score}")):
        pen.text((0, image.height + 4 + 18 * i), line, fill="black", font=_font(12))
    return tile


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
    return text if len(text) <= length else text[: length - 1] + "…"


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
