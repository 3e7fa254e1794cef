"""What may end a training before its time, in order: SIGTERM, and memory that does not suffice.

SIGTERM: the step in hand is finished, its checkpoint written, and the process exits with 143; the same command goes on
from there to the same bytes. Of several processes all stop after the same step. Further signals change nothing.
Memory: with `compute.on_out_of_memory: halve` a note in the work folder lets the next start take half the prompts a
pass, which is the same step in other sums, from the last checkpoint; the run exits as one that may be tried again.
Left out on purpose: the Trainer's own checkpoint on SIGTERM, which is written amid a step and stops who resumes it.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from vlmr1.errors import TransientError, transient
from vlmr1.files import write_json
from vlmr1.launch import is_first
from vlmr1.settings import Compute
from vlmr1.watching import label

MEMORY = "out-of-memory.json"  # in the work folder: {prompts_per_device, was, step} of the last time
STOPPED = 143  # exit code of a process that SIGTERM ended


class StopsInOrder(TrainerCallback):
    """Ends a training after the step in which SIGTERM came, with a checkpoint.

    `over_processes` sums plain numbers over all processes.
    """

    def __init__(self, over_processes: Callable[..., list[float]]) -> None:
        self.over_processes = over_processes
        self.asked = self.stopping = False
        self.before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # others may not
            self.before = signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (asked,) = self.over_processes(float(self.asked))
        if asked:
            self.stopping = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopping:  # only now: a checkpoint that says "stop" would stop who resumes it
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.restore()

    def restore(self) -> None:
        """Let SIGTERM mean again what it meant before."""
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)
            self.before = None


def fitting(compute: Compute, work: Path) -> Compute:
    """The settings with as many prompts a pass as the memory has proved to hold."""
    path = work / MEMORY
    if not path.is_file():
        return compute
    return compute.model_copy(
        update={"prompts_per_device": json.loads(path.read_text(encoding="utf-8"))["prompts_per_device"]}
    )


@contextmanager
def in_order(trainer: Any) -> Iterator[None]:
    """Around a training. Raises SystemExit after SIGTERM; short of memory TransientError, or ValueError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        share = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
        raise short_of_memory(error, trainer.compute, share, trainer.work, trainer.state.global_step) from error
    finally:
        trainer.stops.restore()
    if trainer.stops.stopping:
        if is_first():
            step = trainer.state.global_step
            print(f"{label(trainer.work)}: stopped after step {step}, checkpoint written", flush=True)
        sys.exit(STOPPED)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, an accelerator's or, of a CPU, what torch says in words alone."""
    return (transient(error) and not isinstance(error, TransientError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def short_of_memory(error: BaseException, compute: Compute, share: int, work: Path, step: int) -> Exception:
    """What a training that was short of memory ends with: TransientError where the next start will take less.

    `compute` as this run used it; `share`: prompts of a step on each process; `step`: those done.
    """
    now = compute.prompts_per_device or share
    what = f"out of memory after step {step} with {now} prompts a pass"
    if compute.on_out_of_memory == "fail" or now == 1:
        why = "a single one cannot be halved" if now == 1 else "compute.on_out_of_memory is fail"
        mend = "set activation_checkpointing" if now == 1 else "lower compute.prompts_per_device"
        return ValueError(f"{what}, and {why}; {mend}, or train a smaller model ({str(error).splitlines()[0]})")
    half = next(n for n in range(now // 2, 0, -1) if share % n == 0)
    write_json(work / MEMORY, {"prompts_per_device": half, "was": now, "step": step})
    return TransientError(f"{what}; started again it takes {half} a pass and goes on from the last checkpoint")
