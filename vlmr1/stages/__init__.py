"""Stages: the verbs. One module each, run by dvc.yaml as `python -m vlmr1.stages.NAME`; none knows Prefect.

What differs by nature from run to run (times, host) goes to `work/records/NAME.json`, never into a tracked output.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmr1.device import accelerator_name, load_npu, peak_bytes
from vlmr1.errors import RETRY, transient
from vlmr1.files import sha256, write_atomically, write_json
from vlmr1.launch import is_first, leave, start_processes
from vlmr1.settings import PARAMS, Params, load_params

# Before torch and transformers are imported, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# oneDNN keeps what it compiled for each shape of a product; rows differ in length at every step, and memory would grow.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")  # PyTorch's own store of the same

try:
    load_npu()  # wherever a maker's extension is installed: a broken one would break every import of torch
except ValueError as error:
    sys.exit(f"vlmr1: {error}")

RECORDS = Path("work/records")
CONVERTED = Path("data/converted")
REFUSED = Path("reports/validation/refused.jsonl")
BASE = Path("models/base")


def run_stage(name: str, main: Callable[[Params], Any], trains: bool | Callable[[Params], bool] = False) -> None:
    """Run a stage's work on params.yaml; a fault that a person can mend is said in a sentence, without a traceback.

    A stage that `trains` starts itself again under torchrun where params ask for several processes.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that cleanups run
    continued = (Path("work") / name / "fingerprint.json").is_file()  # its earlier attempt's time is not ours to know
    started, wall = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.monotonic()
    try:
        params = load_params()
        if trains if isinstance(trains, bool) else trains(params):
            start_processes(params.compute, f"vlmr1.stages.{name.partition('-')[0]}", sys.argv[1:])
        main(params)
        leave()
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        if not PARAMS.is_file():  # not a project's folder: leave nothing in it
            sys.exit(f"{name}: {error}")
        if not is_first():
            sys.exit(f"{name}: {error}")
        trace = RECORDS / f"{name}-fault.txt"
        write_atomically(trace, traceback.format_exc())
        sys.exit(f"{name}: {error}\n(where in the code: {trace})")
    except (OSError, MemoryError, RuntimeError) as error:
        if not transient(error):
            raise
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        write_atomically(RECORDS / f"{name}-transient.txt", f"{error}\n")  # torchrun keeps the exit code to itself
        sys.exit(RETRY)
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped; the same command goes on from the last checkpoint")
    if not is_first():
        return
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    record: dict[str, Any] = {
        "stage": name,
        "started": started,
        "wall_seconds": round(time.monotonic() - wall, 2),
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in used), 2),
        "continued": continued,
        "peak_memory_mb": round(max(u.ru_maxrss for u in used) * unit / 2**20),
    }
    if "torch" in sys.modules and (peak := peak_bytes()) is not None:
        record["accelerator"] = accelerator_name()
        record["peak_accelerator_memory_mb"] = round(peak / 2**20)
    metrics = Path("metrics") / f"{name}.json"  # so that the page can tell whose times these are
    record["made"] = sha256(metrics) if metrics.is_file() else None
    write_json(RECORDS / f"{name}.json", record)
    print(f"{name}: done in {record['wall_seconds']} s, {record['cpu_seconds']} CPU-seconds", flush=True)


def places(name: str) -> tuple[Path, Path, Path]:
    """Where a training stage leaves its checkpoint, its logs and its metrics."""
    return Path("models") / name, Path("logs") / name, Path("metrics") / f"{name}.json"


def read_json(path: Path) -> Any:
    """What an earlier stage left. Raises FileNotFoundError where it has not run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; `dvc repro` makes it")
    return json.loads(path.read_text(encoding="utf-8"))
