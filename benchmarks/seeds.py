"""The whole run on several seeds, each in a copy of its own, and one table over them.

    python -m benchmarks.seeds --seeds 1 2 3 --json docs/seeds.json
    python -m benchmarks.seeds --seeds 1 2 --recipe recipes/world-gui.yaml --json docs/figures/world-gui.json

Every seed draws its own world and trains its own base, SFT and GRPO. Seeds run side by side, two unless told; the
copies are made in a temporary folder and removed. Left out on purpose: pooling the seeds into one interval.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlmr1.policies import LABELS

ROOT = Path(__file__).parent.parent
SEEDED = ("world.seed", "warmup.training.seed", "grpo.seed")


def run_seed(seed: int, folder: Path, recipes: Sequence[Path]) -> dict[str, Any]:
    """One whole run in a copy of the working tree, recipes laid over each other. Returns its figures and its cost.

    Raises CalledProcessError when a stage fails.
    """
    project = folder / f"seed-{seed}"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    seeded = project / "seed.yaml"
    seeded.write_text("{}\n")
    for number, recipe in enumerate(recipes):
        shutil.copy(recipe, project / f"recipe-{number}.yaml")
    applied = [["vlmr1", "apply", f"recipe-{number}.yaml"] for number in range(len(recipes))]
    sets = [part for key in SEEDED for part in ("-S", f"{key}={seed}")]
    for command in (*applied, ["vlmr1", "apply", seeded.name, *sets], ["git", "init", "-q"], ["dvc", "repro"]):
        with (folder / f"seed-{seed}.log").open("a") as log:
            subprocess.run(command, cwd=project, stdout=log, stderr=log, check=True)
    figures = {p: json.loads((project / f"predictions/{p}/figures.json").read_text()) for p in LABELS}
    training = json.loads((project / "metrics/grpo.json").read_text())
    kept = [path for path in (project / "work/records").glob("*.json") if path.name != "run.json"]
    records = [json.loads(path.read_text()) for path in kept]
    cost = {key: round(sum(record[key] for record in records)) for key in ("wall_seconds", "cpu_seconds")}
    print(f"seed {seed}: done", flush=True)
    return {"seed": seed, "cost": cost, "grpo": training, "evaluation": figures}


def cell(figures: dict[str, Any]) -> str:
    """The figure a policy is judged by, with its interval."""
    value, low, high = (figures[figures["judged"] + suffix] for suffix in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def markdown(runs: list[dict[str, Any]]) -> str:
    """The table: reward gain, then what every policy is judged by, greedy, with its interval, on every source."""
    lines = [
        "| seed | source | n | base | SFT, equal samples | SFT, equal compute | GRPO |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for source, ways in run["evaluation"]["base"].items():
            cells = [cell(run["evaluation"][policy][source]["greedy"]) for policy in LABELS]
            lines.append(f"| {run['seed']} | {source} | {ways['greedy']['n']} | {' | '.join(cells)} |")
    lines += ["", "| seed | reward, first tenth | last tenth | gain in standard errors |", "|---|---|---|---|"]
    for run in runs:
        g = run["grpo"]
        gain = g.get("reward_gain_in_standard_errors", float("nan"))
        lines.append(f"| {run['seed']} | {g['reward_first_tenth']:.3f} | {g['reward_last_tenth']:.3f} | {gain:+.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--json", type=Path, required=True, help="where the figures go; the table goes beside it as .md"
    )
    parser.add_argument("--recipe", type=Path, nargs="+", default=[], help="recipes to lay over params.yaml, in order")
    parser.add_argument("--beside", type=int, default=2, help="runs side by side")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vlmr1-seeds-"))
    try:
        with ThreadPoolExecutor(chosen.beside) as pool:
            runs = list(pool.map(lambda seed: run_seed(seed, folder, chosen.recipe), chosen.seeds))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed; what it said is in {folder}")
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(runs, indent=1) + "\n")
    chosen.json.with_suffix(".md").write_text(markdown(runs))
    print(markdown(runs))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
