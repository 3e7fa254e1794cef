"""Two hundred faults: each done to a real run at a random moment, the run repeated, its end compared to the byte.

    python -m benchmarks.faults --faults 200 --seed 1 --json docs/benchmarks/faults.json

Three groups (`--only store graph flow`), each a module beside this one: a release store behind a server that
misbehaves, the smallest pipeline by stages and by DVC, and what `make up` keeps running. A fault counts where the
repeated run ended in the same hashes as one that nothing struck, nothing half-done was visible in between, and no
process was left.
Which fault comes when follows from the seed; what a process was just doing follows from the machine too.
Left out on purpose: the system's own clock and disks, which are never touched (see `benchmarks.clock`, `fault_graph`).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import fault_flow, fault_graph, fault_store
from vlmr1.files import write_json
from vlmr1.provenance import machine

SHARES = {"store": 0.66, "graph": 0.28, "flow": 0.06}  # of all faults; a store's cost least
MODULES: dict[str, Any] = {"store": fault_store, "graph": fault_graph, "flow": fault_flow}


def kinds_of(group: str) -> tuple[str, ...]:
    return MODULES[group].KINDS


def faults_of(group: str, count: int, seed: int) -> list[tuple[str, random.Random]]:
    """Kinds in turn, each with its own random numbers."""
    kinds = kinds_of(group)
    return [(kinds[i % len(kinds)], random.Random(f"{seed}/{group}/{i}")) for i in range(count)]


def strike_all(
    group: str,
    faults: list[tuple[str, random.Random]],
    until: float,
    bench: AbstractContextManager[Any],
    found: list[dict[str, Any]],
) -> None:
    """One fault after another, as many as there is time for, each added to `found`."""
    with bench as made:
        for number, (kind, rng) in enumerate(faults, start=1):
            if time.monotonic() > until:
                break
            start = time.monotonic()
            wrong = one(MODULES[group].strike, made, kind, rng)
            seconds = round(time.monotonic() - start, 1)
            found.append({"group": group, "kind": kind, "seconds": seconds, "wrong": wrong})
            print(
                f"{group} {number}/{len(faults)}  {kind}: {'; '.join(wrong) or 'identical'} ({seconds} s)", flush=True
            )
        if group == "graph" and not made.tmpfs:
            print("graph: this user may mount no tmpfs, so a full disk was a limit on the size of files alone")


def one(strike: Callable[..., list[str]], made: Any, kind: str, rng: random.Random) -> list[str]:
    """One fault; what breaks the check itself is a finding too."""
    try:
        return strike(made, kind, rng)
    except Exception:
        return [traceback.format_exc()[-2000:]]


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: a row a kind, those too that there was no time for."""
    rows = ["| | fault | count | identical ends | seconds |", "|---|---|---|---|---|"]
    struck = {one["group"] for one in found}
    kinds = [(group, kind) for group in MODULES if group in struck for kind in dict.fromkeys(kinds_of(group))]
    for group, kind in kinds:
        of = [one for one in found if (one["group"], one["kind"]) == (group, kind)]
        good, seconds = sum(not one["wrong"] for one in of), sum(one["seconds"] for one in of)
        rows.append(f"| {group} | {kind} | {len(of)} | {good} | {seconds:.0f} |")
    good = sum(not one["wrong"] for one in found)
    rows.append(f"| | all | {len(found)} | {good} | {sum(one['seconds'] for one in found):.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES), help="these groups")
    parser.add_argument("--minutes", type=float, default=60.0, help="no fault is begun later, in each group")
    parser.add_argument("--project", type=Path, help="one that `dvc repro` has finished, instead of a new one")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found: list[dict[str, Any]] = []
    begun = time.monotonic()
    whole = sum(SHARES[group] for group in chosen.only)
    try:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            for group in chosen.only:
                folder = Path(name).resolve() / group
                folder.mkdir()
                count = round(chosen.faults * SHARES[group] / whole)
                more = {"project": chosen.project} if group == "graph" else {}
                bench = MODULES[group].bench(folder, **more)
                faults = faults_of(group, count, chosen.seed)
                strike_all(group, faults, time.monotonic() + 60 * chosen.minutes, bench, found)
    finally:  # what was found stands, whatever stops the rest
        seconds = round(time.monotonic() - begun)
        asked = {"command": sys.argv[1:], "seed": chosen.seed, "asked": chosen.faults}
        if chosen.json is not None:
            write_json(chosen.json, {"machine": machine(), **asked, "seconds": seconds, "faults": found})
        print(f"{table(found)}\n\n{len(found)} of {chosen.faults} faults, seed {chosen.seed}, {seconds} s in all")
    if any(one["wrong"] for one in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
