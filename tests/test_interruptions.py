"""What ends a training early: SIGTERM leaves a checkpoint, short memory a smaller pass, and both go on as one run."""

import multiprocessing
import os
import signal

import pytest
import torch

from tests.conftest import COMPUTE
from tests.test_training import GRPO, grpo
from vlmr1.errors import TransientError
from vlmr1.interruptions import MEMORY
from vlmr1.training import last_whole_checkpoint
from vlmr1.work import told


def interrupted(trainer, step, act):
    """The trainer, which does something amid a step, once."""
    loss = trainer.compute_loss

    def acting(*args, **kwargs):
        if trainer.state.global_step == step:
            act()
        return loss(*args, **kwargs)

    trainer.compute_loss = acting
    return trainer


@pytest.mark.parametrize("step", [2, 7])
def test_sigterm_ends_after_the_step_with_a_checkpoint_and_the_next_run_gives_the_same_bytes(trained, tmp_path, step):
    whole = grpo(trained, tmp_path / "whole")
    rows = whole.run()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        interrupted(grpo(trained, tmp_path / "cut"), step, lambda: os.kill(os.getpid(), signal.SIGTERM)).run()
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert last_whole_checkpoint(tmp_path / "cut").name == f"checkpoint-{step + 1}"  # no saving step of its own
    resumed = grpo(trained, tmp_path / "cut")
    assert resumed.run() == rows
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert (tmp_path / "whole/rollouts.jsonl").read_bytes() == (tmp_path / "cut/rollouts.jsonl").read_bytes()


def short():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


HALVE = COMPUTE.model_copy(update={"on_out_of_memory": "halve"})


def test_what_ends_a_whole_group_leaves_the_workers_to_the_trainer(trained, tmp_path):
    """Else SIGTERM to all, as from a terminal or a time limit, would kill them amid the step that is to be finished."""
    trainer = grpo(trained, tmp_path / "w", compute=COMPUTE.model_copy(update={"workers": 1}))
    batches = iter(trainer.get_train_dataloader())
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert os.getpgid(worker.pid) == worker.pid != os.getpgrp()
    del batches
    worker.join(10)


def test_short_of_memory_the_next_start_takes_half_a_pass_from_the_last_checkpoint(trained, tmp_path):
    """Stopped between two steps on one set of rollouts, which are then taken in smaller passes."""
    settings = GRPO.model_copy(update={"save_steps": 3})
    rows = grpo(trained, tmp_path / "whole", settings=settings).run()
    with pytest.raises(TransientError, match="after step 3 with 4 prompts a pass; started again it takes 2"):
        interrupted(grpo(trained, tmp_path / "cut", settings=settings, compute=HALVE), 3, short).run()
    resumed = grpo(trained, tmp_path / "cut", settings=settings, compute=HALVE)
    assert resumed.compute.prompts_per_device == 2 and resumed.args.gradient_accumulation_steps == 2
    again = resumed.run()
    assert [row["step"] for row in again] == [row["step"] for row in rows]
    assert [row["reward"] for row in again[:5]] == [row["reward"] for row in rows[:5]]
    assert [row["loss"] for row in again[:4]] == pytest.approx([row["loss"] for row in rows[:4]], abs=1e-5)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"on_out_of_memory": "fail"}, "on_out_of_memory is fail; lower compute.prompts_per_device"),
        ({"on_out_of_memory": "halve", "prompts_per_device": 1}, "a single one cannot be halved"),
    ],
)
def test_what_cannot_be_halved_ends_in_a_sentence(trained, tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        interrupted(grpo(trained, tmp_path, compute=COMPUTE.model_copy(update=change)), 1, short).run()
    assert not (tmp_path / MEMORY).exists()


def test_what_to_do_short_of_memory_is_no_part_of_what_a_run_is():
    assert told(HALVE) == told(COMPUTE)
