"""One whole GRPO step of this project against its peers: processor, rollout, reference, policy, optimizer.

    python -m benchmarks.grpo_step --against trl,naive --visual-tokens 256 --completion 64 --group 8 --json step.json

Every system is a process of its own on the same random model, the same questions and the same number of sampled
tokens. Steps go round in turn, one system at a time, so that a busy machine slows all alike; the first round warms up
and is dropped. Figures are medians of CPU seconds (on a GPU seconds) with the least and the most. Peak memory is the
increase from the policy's first look at the prompts to the end of its backward pass, in two rounds after the timed.
TRL comes with the extra `bench`. Left out on purpose: several processes and vLLM.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.workload import SIZES, Case, build_checkpoint
from vlmr1.device import BACKENDS, packs_sequences

PEERS = ("trl", "trl-compact", "trl-default", "trl-onednn", "ours-mkl", "ours-trainer", "naive")
PHASES = ("processing", "read", "rollout", "reference", "policy", "optimizer")
MEMORY_ROUNDS = 2
LIBRARIES = ("torch", "transformers", "trl", "accelerate")


class System:
    """A system's process: one order a step on its input, one line of JSON a step on its output."""

    def __init__(self, name: str, folder: Path, case: Case) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self.steps: list[dict[str, Any]] = []
        command = [sys.executable, "-m", "benchmarks.peers", name, str(folder), json.dumps(asdict(case))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )

    def step(self, order: str) -> None:
        """Raises RuntimeError with what the process said last where it died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended early:\n" + "\n".join(self.log.read_text().splitlines()[-20:]))
        self.steps.append({"order": order} | json.loads(line))

    def close(self) -> None:
        self.process.communicate()


def measure(case: Case, against: list[str], rounds: int) -> dict[str, Any]:
    """Figures of ours and of each peer. Raises RuntimeError when a system fails or their work differs."""
    with tempfile.TemporaryDirectory(prefix="grpo-step-") as name:
        build_checkpoint(Path(name), case.size)
        systems = [System(peer, Path(name), case) for peer in ["ours", *against]]
        try:
            for order in ["step"] * (rounds + 1) + ["memory"] * MEMORY_ROUNDS:
                for system in systems:
                    system.step(order)
                    print(".", end="", file=sys.stderr, flush=True)
        finally:
            print(file=sys.stderr)
            for system in systems:
                system.close()
    work = {json.dumps([step["prompt"], step["completion"]]) for system in systems for step in system.steps}
    if len(work) > 1:
        raise RuntimeError(f"the systems did not do the same work: {sorted(work)}")
    return {system.name: summary(system.steps) for system in systems}


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the timed rounds of one system, without the first."""
    timed = [step for step in steps if step["order"] == "step"][1:]
    peaks = [step["peak"] for step in steps if step["order"] == "memory"]
    totals = [step["total"] for step in timed]
    phases = {p: statistics.median(step["phases"].get(p, 0.0) for step in timed) for p in PHASES}
    phases["rest"] = statistics.median(step["total"] - sum(step["phases"].values()) for step in timed)
    figures = {"total": statistics.median(totals), "least": min(totals), "most": max(totals), "phases": phases}
    return figures | {"peak": statistics.median(peaks), "steps": steps}


def markdown(figures: dict[str, Any]) -> str:
    """The table: seconds by phase, total and range, peak memory, and each system's ratio to ours."""
    names = [*PHASES, "rest"]
    lines = [f"| system | {' | '.join(names)} | step (range), s | times ours | peak, MB | times ours |"]
    lines.append("|---" * (len(names) + 5) + "|")
    ours = figures["ours"]
    for name, one in figures.items():
        cells = [f"{one['phases'][p]:.2f}" for p in names]
        cells.append(f"{one['total']:.2f} ({one['least']:.2f}-{one['most']:.2f})")
        cells += [f"{one['total'] / ours['total']:.2f}", f"{one['peak'] / 1e6:.0f}"]
        cells.append(f"{one['peak'] / ours['peak']:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        if importlib.util.find_spec(name):
            found[name] = importlib.metadata.version(name)
    return found


def _peers(text: str) -> list[str]:
    chosen = [name for name in text.split(",") if name]
    if unknown := set(chosen) - set(PEERS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: no such peer; there are {', '.join(PEERS)}")
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against", type=_peers, default="trl,naive", help=f"some of {', '.join(PEERS)}, joined by commas"
    )
    parser.add_argument("--visual-tokens", type=int, default=256, help="of a picture: 256 is 448 x 448 pixels")
    parser.add_argument("--completion", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt")
    parser.add_argument("--prompts", type=int, default=1, help="prompts of a step")
    parser.add_argument("--beta", type=float, default=0.04, help="weight of the KL term; 0 needs no reference")
    parser.add_argument("--freeze-vision", action="store_true", help="train the language model alone")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing for all")
    parser.add_argument("--device", choices=sorted(BACKENDS), default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--attention", choices=["sdpa", "varlen"], default="sdpa", help="of ours, on CUDA in bfloat16")
    parser.add_argument("--size", choices=sorted(SIZES), default="bench")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one that warms up")
    parser.add_argument("--json", type=Path, required=True, help="where everything goes; the table as .md beside it")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    if any(peer.startswith("trl") for peer in chosen.against) and not importlib.util.find_spec("trl"):
        sys.exit("TRL is not installed here: pip install -e '.[train,bench]', or leave trl out of --against")
    case = Case(
        chosen.visual_tokens, chosen.completion, chosen.group, chosen.prompts, chosen.beta, chosen.freeze_vision,
        chosen.checkpointing, chosen.device, chosen.dtype, chosen.size, chosen.attention,
    )  # fmt: skip
    if case.attention == "varlen" and (
        not packs_sequences(case.device) or case.dtype == "float32" or "ours-trainer" in chosen.against
    ):
        sys.exit("--attention varlen: a kernel for CUDA in half precision, and not of ours-trainer")
    try:
        figures = measure(case, chosen.against, chosen.rounds)
    except RuntimeError as error:
        sys.exit(str(error))
    command = "python -m benchmarks.grpo_step " + " ".join(sys.argv[1:])
    report = {"command": command, "case": asdict(case), "versions": versions(), "figures": figures}
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    chosen.json.with_suffix(".md").write_text(markdown(figures))
    print(markdown(figures))


if __name__ == "__main__":
    main()
