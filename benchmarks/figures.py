"""docs/figures.md: what the recipes of the embedded worlds learn, from whole runs that `benchmarks.seeds` made.

    python -m benchmarks.seeds --seeds 1 2 --recipe recipes/world-gui.yaml --json docs/figures/world-gui.json
    python -m benchmarks.figures

Left out on purpose: any figure that is not in docs/figures/*.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.seeds import cell
from vlmr1.measures import EXTRAS, TITLES
from vlmr1.policies import LABELS

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
PAGE = FOLDER.with_suffix(".md")
RUNS = {  # by the name of the figures: the recipes that made them
    "world-ovd": ("world-ovd",),
    "world-ovd-ap50": ("world-ovd", "world-ovd-ap50"),
    "world-math": ("world-math",),
    "world-gui": ("world-gui",),
}
MARK = "<!-- made by `python -m benchmarks.figures` from here on -->\n"


def section(name: str, runs: list[dict[str, Any]]) -> str:
    """One recipe's tables: its scores on every source, what else is measured there, and what it cost."""
    recipes = " ".join(f"recipes/{recipe}.yaml" for recipe in RUNS[name])
    seeds = " ".join(str(run["seed"]) for run in runs)
    lines = [
        f"## {name}",
        "",
        f"`python -m benchmarks.seeds --seeds {seeds} --recipe {recipes} --json docs/figures/{name}.json`",
        "",
        f"| seed | source | n | constant answer | {' | '.join(LABELS.values())} |",
        f"|---|---|---|---|{'---|' * len(LABELS)}",
    ]
    for run in runs:
        for source, ways in run["evaluation"]["base"].items():
            one = ways["greedy"]
            cells = [cell(run["evaluation"][policy][source]["greedy"]) for policy in LABELS]
            constant = f"{one['majority']:.3f}" if "majority" in one else ""
            lines.append(f"| {run['seed']} | {source} | {one['n']} | {constant} | {' | '.join(cells)} |")
    lines += [
        "",
        f"The figure is {TITLES[runs[0]['evaluation']['base'][source]['greedy']['judged']]}, greedy, with its 95 %",
    ]
    lines[-1] += " interval.\n"
    lines += more(runs)
    lines += ["| seed | reward, first tenth | last tenth | gain in standard errors | seconds | CPU-seconds |"]
    lines += ["|---|---|---|---|---|---|"]
    for run in runs:
        g, cost = run["grpo"], run["cost"]
        gain = g.get("reward_gain_in_standard_errors", float("nan"))
        rise = f"{g['reward_first_tenth']:.3f} | {g['reward_last_tenth']:.3f} | {gain:+.1f}"
        lines.append(f"| {run['seed']} | {rise} | {cost['wall_seconds']:,} | {cost['cpu_seconds']:,} |")
    return "\n".join(lines) + "\n"


def more(runs: list[dict[str, Any]]) -> list[str]:
    """What is measured beside the main figure, where anything is: of detections precision, recall and boxes said."""
    first = runs[0]["evaluation"]["base"]
    extras = EXTRAS[next(iter(first.values()))["greedy"]["judged"]]
    if not extras:
        return []
    lines = [f"| seed | source | model | {' | '.join(extras.values())} |", f"|---|---|---|{'---|' * len(extras)}"]
    for run in runs:
        for source in first:
            for policy, label in LABELS.items():
                figures = run["evaluation"][policy][source]["greedy"]
                told = [f"{figures[key]:.3f}" if key in figures else "" for key in extras]
                lines.append(f"| {run['seed']} | {source} | {label} | {' | '.join(told)} |")
    return [*lines, ""]


def main() -> None:
    found = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in RUNS}
    kept = PAGE.read_text(encoding="utf-8").split(MARK)[0]  # what people wrote above the tables stays
    PAGE.write_text(kept + MARK + "\n" + "\n".join(section(*one) for one in found.items()), encoding="utf-8")
    print(f"{PAGE.name}: {', '.join(found)}")


if __name__ == "__main__":
    main()
