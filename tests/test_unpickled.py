"""Folders of strangers run nothing: what training goes on from, what evaluation and merging load."""

import json
import os
import pickle
import shutil

import pytest
import torch

from tests.test_training import Killed, grpo
from vlmr1 import unpickled
from vlmr1.adapters import merge
from vlmr1.families import load_family


class Hostile:
    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def test_a_training_does_not_go_on_from_pickled_code(trained, tmp_path):
    with pytest.raises(Killed):
        grpo(trained, tmp_path / "work", die_at=5).run()
    (checkpoint,) = (tmp_path / "work").glob("checkpoint-*")
    torch.save(Hostile(tmp_path / "made"), checkpoint / "training_args.bin")  # which nobody reads
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        good = (checkpoint / name).read_bytes()
        torch.save(Hostile(tmp_path / "made"), checkpoint / name)
        with pytest.raises(ValueError, match=rf"{checkpoint.name}: holds what no training of this project writes"):
            grpo(trained, tmp_path / "work").run()
        (checkpoint / name).write_bytes(good)
    assert not (tmp_path / "made").exists()


def test_whoever_asks_torch_for_more_gets_plain_data(tmp_path):
    """As DeepSpeed does; of its own it gets what it needs, and of `getattr` that alone."""
    with pytest.raises(ValueError, match="checkpoint-1: holds what"), unpickled.plain(tmp_path / "checkpoint-1"):
        torch.save(Hostile(tmp_path / "made"), tmp_path / "x.pt")
        torch.load(tmp_path / "x.pt", weights_only=False)
    assert not (tmp_path / "made").exists()
    unpickled.know_deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    torch.save({"stage": ZeroStageEnum.gradients, "scale": LossScaler(2.0)}, tmp_path / "x.pt")
    found = torch.load(tmp_path / "x.pt", weights_only=False)
    assert found["stage"] is ZeroStageEnum.gradients and found["scale"].cur_scale == 2.0

    class Reaching:
        def __reduce__(self):
            return getattr, (LossScaler, "__init__")

    torch.save(Reaching(), tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pt", weights_only=False)


def test_a_checkpoint_of_pickled_weights_is_not_loaded(tiny, tmp_path):
    folder = shutil.copytree(tiny[0], tmp_path / "checkpoint")
    torch.save(Hostile(tmp_path / "made"), folder / "pytorch_model.bin")
    load_family(folder, 112 * 112).load_model(folder, torch.float32)  # the safetensors are read, and nothing beside
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_family(folder, 112 * 112).load_model(folder, torch.float32)
    assert not (tmp_path / "made").exists()


def test_a_pickled_adapter_is_not_merged(tiny, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "base.json").write_text(json.dumps({"base": str(tiny[0]), "revision": None, "sha256": ""}))
    torch.save(Hostile(tmp_path / "made"), adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors, the only kind"):
        merge(adapter, None, tmp_path / "merged")
    assert not (tmp_path / "made").exists() and not (tmp_path / "merged").exists()
