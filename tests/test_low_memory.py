# ruff: noqa: F811
"""Supervised training takes what GRPO takes to need less memory, and learns the same; float16's scaled gradients."""

import pytest
import torch

from tests.conftest import COMPUTE
from tests.processes import do, job, largest, rows_of, under_torchrun, weights_of, zero
from tests.test_processes import WEIGHTS, folder, mixed, place  # noqa: F401  (fixtures)
from tests.test_training import grpo

CHECKPOINTING = "compute.activation_checkpointing=true"


@pytest.fixture(scope="module")
def whole(place, folder):
    """One process that keeps everything on its device."""
    do([job("whole", place, supervised=True)], folder / "sft")
    return folder / "sft/whole"


def test_supervised_training_with_checkpointing_learns_the_same(place, folder, whole):
    do([job("again", place, CHECKPOINTING, supervised=True)], folder / "sft")
    assert [row["loss"] for row in rows_of(whole)] == pytest.approx(
        [row["loss"] for row in rows_of(folder / "sft/again")], rel=1e-6
    )
    difference, name = largest(weights_of(folder / "sft/again"), weights_of(whole))
    assert difference < WEIGHTS, name


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "offload"), [(2, "optimizer"), (3, "all")])
def test_supervised_training_sharded_and_on_the_host_learns_the_same(place, folder, whole, stage, offload):
    out = folder / f"sft-{stage}"
    under_torchrun([job("shared", place, zero(stage, offload), CHECKPOINTING, supervised=True)], out)
    difference, name = largest(weights_of(out / "shared"), weights_of(whole))
    assert difference < WEIGHTS, name


def test_overflowing_gradients_stop_a_run_unless_their_loss_is_scaled(trained, tmp_path):
    """In float16 the scaler skips such a step; there is no device here to train in it on."""
    trainer = grpo(trained, tmp_path, compute=COMPUTE)
    endless = torch.tensor(float("inf"))
    with pytest.raises(FloatingPointError, match="the gradients' norm is inf"):
        trainer._get_grad_norm(trainer.model, grad_norm=endless)
    trainer.args.fp16 = True
    assert trainer._get_grad_norm(trainer.model, grad_norm=endless) == endless
