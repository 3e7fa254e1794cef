"""The report's pictures as PNG: scores with intervals, and curves of training.

Same inputs, same bytes. Left out on purpose: anything interactive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from vlmr1.policies import LABELS

COLOURS = {"base": "#8c8c8c", "sft-samples": "#7fb3d5", "sft-compute": "#2471a3", "grpo": "#d35400"}
plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def accuracy(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str, path: Path) -> None:
    """What every policy is judged by on every source, a panel for each way of decoding, with 95 % intervals."""
    sources = list(next(iter(metrics.values())))
    ways = list(next(iter(metrics.values()))[sources[0]])
    size = (1.6 + 1.35 * max(2, len(sources)), 0.6 + 2.4 * len(ways))
    figure, axes = plt.subplots(len(ways), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    width = 0.8 / len(metrics)
    for axis, way in zip(axes[:, 0], ways, strict=True):
        for i, (policy, figures) in enumerate(metrics.items()):
            found = [figures[s][way] for s in sources]
            values = [f[f["judged"]] for f in found]
            below = [max(0.0, f[f["judged"]] - f[f"{f['judged']}_low"]) for f in found]
            above = [max(0.0, f[f"{f['judged']}_high"] - f[f["judged"]]) for f in found]
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
        axis.set_ylabel(f"{title}, {way}")
        axis.set_ylim(0, 1.02)
    axes[-1, 0].set_xticks(range(len(sources)), [s.replace("_", " ") for s in sources])
    axes[0, 0].legend(ncols=len(metrics), loc="upper center", bbox_to_anchor=(0.5, 1.18), frameon=False)
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


def reward_curves(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The reward and the parts it is weighed from, as `curves` wants them."""
    parts = [key for key in rows[0] if key.startswith("rewards/") and not key.endswith(("_std", "_failures"))]
    return {"reward": "total", **{key: key.removeprefix("rewards/") for key in parts}}
