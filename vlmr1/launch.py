"""Several processes: a training stage that params give more than one starts itself again under torchrun.

torchrun (torch.distributed.run) starts, watches and stops the processes; on several nodes the same command is run on
each (for stages `vlmr1 join` does that), and they meet at `compute.launch.rendezvous`, each command under a name of its
own. The nodes share the project's folder; the first process alone writes results.
Left out on purpose: remote shells, schedulers, restarts on failure (a stopped run goes on from its checkpoint).
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

from vlmr1.joining import announce

if TYPE_CHECKING:
    from vlmr1.settings import Compute

MARK = "TORCHELASTIC_RUN_ID"  # torchrun sets it in the processes it starts
PATIENCE = 86_400  # seconds a node waits for the others
_farewell = threading.Event()  # whether this process has left the others
_turns = count()  # how often the first process went alone, which every process counts alike


def start_processes(compute: Compute, name: str, module: str, arguments: Sequence[str], told: bool = False) -> None:
    """Replace this process by torchrun over `python -m module arguments`, unless one process is all, or this is one.

    Nodes meet under `name`: one that runs another command joins nobody. `told`: `vlmr1 join` learns of it.
    Raises ValueError, before anything starts, where the machine cannot run so many.
    """
    if MARK in os.environ:
        warnings.simplefilter("ignore", FutureWarning)  # libraries tell each other, from every process at every step
        _end_with_torchrun()
        atexit.register(_end_in_peace)
        return
    check(compute)
    if compute.launch is None:
        return
    launch = compute.launch
    where = ["--standalone"]
    if launch.nnodes > 1:
        where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(launch.rendezvous), "--rdzv-id", f"vlmr1-{name}"]
        where += ["--rdzv-conf", f"join_timeout={PATIENCE}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(launch.nnodes), *where]
    command += ["--nproc-per-node", str(launch.nproc_per_node), "-m", module, *arguments]
    if told and launch.rendezvous is not None:
        announce(name, command[1:], launch.rendezvous)
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _end_with_torchrun() -> None:
    """End once torchrun is gone: killed outright it takes nobody along, and two runs would write to the same files."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check(compute: Compute) -> None:
    """Raises ValueError, naming the key and the mend, where this machine cannot run what `compute` says."""
    from vlmr1.device import decide, look

    found = look()
    accelerators = 0 if decide(compute, found).kind == "cpu" else found.count
    if compute.launch is not None:
        most, what = (accelerators, "devices") if accelerators else (os.cpu_count() or 1, "cores")
        if compute.launch.nproc_per_node > most:
            raise ValueError(
                f"compute.launch.nproc_per_node: {compute.launch.nproc_per_node} processes on a machine of {most}"
                f" {what}; lower it"
            )
    if compute.deepspeed is not None:
        if compute.launch is None:
            raise ValueError("compute.deepspeed: shards over processes, and there is one; give compute.launch, or null")
        if not accelerators and shutil.which("g++") is None:
            raise ValueError(
                "compute.deepspeed: on a CPU DeepSpeed compiles its collectives and finds no g++; install a C++"
                " compiler, or set it to null"
            )


def is_first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def place() -> tuple[int, int]:
    """Which process this is, and of how many."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Returns when every process has come here. For stages without a trainer, which would join the processes itself."""
    if "RANK" in os.environ:
        import torch.distributed

        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        torch.distributed.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process passes before the others. It tells them by torchrun's store, before any process group is made.

    (accelerate's `main_process_first` lets every process pass at once where it finds no accelerator.)
    """
    if "RANK" not in os.environ:
        yield
        return
    from torch.distributed.rendezvous import rendezvous

    turn = f"first-{next(_turns)}"
    store, *_ = next(rendezvous("env://"))
    if is_first():
        yield
        store.set(turn, "done")
    else:
        store.wait([turn], timedelta(seconds=PATIENCE))
        yield


def leave() -> None:
    """Part from the other processes in order; without it some back ends abort on exit."""
    if "RANK" in os.environ:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        _farewell.set()


def _end_in_peace() -> None:
    """The last of all that is done at exit. DDP leaves threads behind that now and then abort what would follow."""
    if _farewell.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if hasattr(sys, "last_value") else 0)  # it is there after a traceback
