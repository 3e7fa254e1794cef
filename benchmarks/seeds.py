"""The whole default run on several seeds, each in a copy of its own, and one table over them.

    python -m benchmarks.seeds --seeds 1 2 3 --json docs/seeds.json

Every seed draws its own world and trains its own base, SFT and GRPO. Two seeds run side by side; the copies are
made in a temporary folder and removed. Left out on purpose: pooling the seeds into one interval.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlmr1.policies import LABELS

ROOT = Path(__file__).parent.parent
SEEDED = ("world.seed", "warmup.training.seed", "grpo.seed")


def run_seed(seed: int, folder: Path, recipe: Path | None) -> dict[str, Any]:
    """One whole run in a copy of the working tree. Returns its figures; CalledProcessError when a stage fails."""
    project = folder / f"seed-{seed}"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    overlay = project / "seed.yaml"
    overlay.write_text("{}\n" if recipe is None else recipe.read_text())
    sets = [part for key in SEEDED for part in ("-S", f"{key}={seed}")]
    for command in (["vlmr1", "apply", overlay.name, *sets], ["git", "init", "-q"], ["dvc", "repro"]):
        with (folder / f"seed-{seed}.log").open("a") as log:
            subprocess.run(command, cwd=project, stdout=log, stderr=log, check=True)
    figures = {p: json.loads((project / f"predictions/{p}/figures.json").read_text()) for p in LABELS}
    training = json.loads((project / "metrics/grpo.json").read_text())
    print(f"seed {seed}: done", flush=True)
    return {"seed": seed, "grpo": training, "evaluation": figures}


def markdown(runs: list[dict[str, Any]]) -> str:
    """The table: reward gain, then what every policy is judged by, greedy, with its interval, on every source."""
    lines = [
        "| seed | source | n | base | SFT, equal samples | SFT, equal compute | GRPO |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for source, ways in run["evaluation"]["base"].items():
            cells = []
            for policy in LABELS:
                f = run["evaluation"][policy][source]["greedy"]
                key = f["judged"]
                cells.append(f"{f[key]:.3f} [{f[f'{key}_low']:.3f}, {f[f'{key}_high']:.3f}]")
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
    parser.add_argument("--recipe", type=Path, help="a recipe to lay over params.yaml first")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vlmr1-seeds-"))
    try:
        with ThreadPoolExecutor(2) as pool:
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
