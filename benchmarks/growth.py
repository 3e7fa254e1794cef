"""How the cost of a GRPO step grows with the group, the completions' length and the picture, ours and the naive way.

    python -m benchmarks.growth --json docs/growth.json --plot docs/growth.png

Each point is `benchmarks.grpo_step`'s comparison: CPU seconds of one step after one that warms up; some minutes on one
core. Left out on purpose: TRL, whose line lies a little above the naive one and which is measured in `grpo_step`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.grpo_step import measure, versions
from benchmarks.workload import Case

BASE = {"visual_tokens": 256, "completion": 64, "group": 8, "prompts": 1}
SWEEPS = {
    "group": ("completions of a prompt", (2, 4, 8, 16)),
    "completion": ("tokens of a completion", (16, 64, 256, 512)),
    "visual_tokens": ("visual tokens of a picture", (64, 256, 576, 1024)),
}
ROUNDS = 3


def sweep(name: str, values: tuple[int, ...]) -> list[dict[str, Any]]:
    """One figure of the case varied: seconds of ours and naive at each value, with the least and the most."""
    points = []
    for value in values:
        figures = measure(Case(**(BASE | {name: value})), ["naive"], ROUNDS)
        point = {
            system: {key: one[key] for key in ("total", "least", "most", "peak")} for system, one in figures.items()
        }
        points.append({name: value} | point)
        ratio = point["naive"]["total"] / point["ours"]["total"]
        print(f"{name} {value}: {point['ours']['total']:.2f} s against {point['naive']['total']:.2f} s, {ratio:.1f} x")
    return points


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Seconds a step above, the ratio of the two below, one column a sweep."""
    figure, axes = plt.subplots(2, len(found), figsize=(4.2 * len(found), 5.2), sharex="col")
    for (name, points), (above, below) in zip(found.items(), axes.T, strict=True):
        x = [point[name] for point in points]
        for system, colour, label in (("naive", "#7f7f7f", "each completion by itself"), ("ours", "#d35400", "shared")):
            y = [point[system]["total"] for point in points]
            errors = [[point[system]["total"] - point[system]["least"] for point in points]]
            errors.append([point[system]["most"] - point[system]["total"] for point in points])
            above.errorbar(x, y, yerr=errors, color=colour, marker="o", ms=4, capsize=2, label=label)
        below.plot(x, [p["naive"]["total"] / p["ours"]["total"] for p in points], color="#2471a3", marker="o", ms=4)
        below.axhline(1, color="#7f7f7f", lw=0.8, ls=":")
        below.set_xlabel(SWEEPS[name][0])
        above.set_ylim(0)
        below.set_ylim(0)
    axes[0, 0].set_ylabel("CPU seconds a step")
    axes[1, 0].set_ylabel("times as fast")
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    chosen = parser.parse_args()
    found = {name: sweep(name, values) for name, (_, values) in SWEEPS.items()}
    report = {"command": "python -m benchmarks.growth", "case": BASE, "rounds": ROUNDS, "versions": versions()}
    chosen.json.write_text(json.dumps(report | {"sweeps": found}, indent=1) + "\n")
    plot(found, chosen.plot)


if __name__ == "__main__":
    main()
