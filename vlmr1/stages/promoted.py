"""promoted: what a release answers to the candidate's very items, for the gate of a retraining; no stage of the graph.

Run: `python -m vlmr1.stages.promoted --release NAME@VERSION --to FOLDER`, in a project whose pipeline has run. The
release is pulled and verified into work/promoted/NAME-VERSION, and asked as the evaluate stage asks; with
`evaluate.engine: http` a server must serve that folder, and where none does the message says how. FOLDER names version,
data, settings and code (`place_of`), so that nothing is asked twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from vlmr1.evaluation.running import evaluate, settings_of
from vlmr1.launch import is_first, wait_for_all
from vlmr1.release.pull import pull
from vlmr1.release.registry import resolve
from vlmr1.release.store import open_store
from vlmr1.settings import Params
from vlmr1.stages import CONVERTED, run_stage
from vlmr1.work import PACKAGE, fingerprint_of

PLACE = Path("work/promoted")


def place_of(params: Params, version: str) -> Path:
    """Where the answers of a version to the present items, with the present settings and code, belong."""
    code = {name: digest for name, digest in fingerprint_of(PACKAGE).items() if name.endswith(".py")}
    about = {"version": version, "code": code, **settings_of(params, CONVERTED)}
    return PLACE / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def main(params: Params, release: str, target: Path) -> None:
    name, version = resolve(open_store(params.publish.store), release)
    checkpoint = PLACE / f"{name}-{version}"
    if is_first():
        shutil.rmtree(checkpoint, ignore_errors=True)
        manifest = pull(open_store(params.publish.store), release, checkpoint, print)
        if manifest["about"]["kind"] == "adapter":
            raise ValueError(
                f"{release} is an adapter by itself, which cannot be asked; publish with publish.merge: true"
            )
    wait_for_all()
    evaluate(params, checkpoint, CONVERTED, PLACE / "asking", target)
    wait_for_all()
    if is_first():
        shutil.rmtree(checkpoint)  # the store has it


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", required=True, metavar="NAME@VERSION")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    chosen = parser.parse_args()
    run_stage("promoted", lambda params: main(params, chosen.release, chosen.to), lambda params: params.evaluate.own)
