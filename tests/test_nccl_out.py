"""Weights by vLLM's weight-transfer API: what the servers are told, in which order."""

import threading

import pytest
import torch

from tests.fake_server import Failing, FakeVllm
from tests.test_remote_rollout import over
from tests.test_training import grpo
from vlmr1.errors import TransientError
from vlmr1.grpo.nccl_out import ByNccl

STEPS = [
    "/shutdown_weight_transfer_engine", "/get_world_size", "/init_weight_transfer_engine", "/update_weight_version",
    "/pause?mode=abort", "/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_mm_cache",
    "/reset_encoder_cache", "/reset_prefix_cache",
]  # fmt: skip


class Nccl:
    """A stand-in that notes what it is asked for."""

    def __init__(self, calls):
        self.calls = calls

    def unique_id(self):
        return bytes(range(128))

    def init_rank(self, world, unique, rank):
        self.calls.append(("init", world, len(unique), rank))
        return "group"

    def all_reduce(self, tensors, comms):
        self.calls.append(("all_reduce", tensors[0].shape, comms))

    def broadcast(self, tensors, root, comms):
        self.calls.append(("broadcast", tensors[0].shape, tensors[0].dtype, root, comms))


def test_nccl_asks_for_what_vllm_knows(trained, tmp_path):
    """The requests' order, and the group's places; the transport is a stand-in, for it needs devices."""
    calls, trainer = [], grpo(trained, tmp_path)

    with FakeVllm(None, ["base"]) as first, FakeVllm(None, ["base"]) as second:
        settings = over(first, second, weights="nccl", path=None)
        with pytest.raises(ValueError, match=r"nccl needs CUDA devices, and this is cpu"):
            ByNccl(trainer, settings)
        way = ByNccl(trainer, settings, Nccl(calls))
        for number in (0, 1):
            way.bring(number)
        assert len(way.ready()) == 2 and first.version == second.version == f"{way.run}.1."
        told, joined = second.told, [dict(one.told)["/init_weight_transfer_engine"] for one in (first, second)]
    assert [one["init_info"]["rank_offset"] for one in joined] == [1, 3]  # two workers each
    assert {one["init_info"]["world_size"] for one in joined} == {5} and not joined[0]["init_info"]["packed"]
    sent = ["/update_weight_version", "/pause?mode=abort", "/start_weight_update", "/update_weights"]
    sent += ["/finish_weight_update", "/reset_mm_cache", "/reset_encoder_cache", "/reset_prefix_cache", "/resume"]
    assert [path for path, _ in told[:2]] == ["/shutdown_weight_transfer_engine", "/init_weight_transfer_engine"]
    assert [path for path, _ in told[2:]] == [*sent, *sent]
    about = dict(told)["/update_weights"]["update_info"]
    assert "lm_head.weight" in about["names"] and "model.embed_tokens.weight" in about["names"]  # a checkpoint's names
    assert set(about["dtype_names"]) == {"float32"} and len(about["names"]) == len(trainer.bare.state_dict())
    assert calls[:2] == [("init", 5, 128, 0), ("all_reduce", torch.Size([1]), ["group"])]
    assert [list(one[1]) for one in calls[2:]] == 2 * about["shapes"] and {*map(str, (c[-1] for c in calls[2:]))} == {
        "['group']"
    }


def test_a_server_that_fails_amid_a_transfer_is_dropped_and_nobody_stays_paused(trained, tmp_path, monkeypatch):
    trainer = grpo(trained, tmp_path)
    few = {"one": torch.zeros(2), "two": torch.zeros(3)}
    monkeypatch.setattr("vlmr1.grpo.nccl_out.served_weights", lambda *of: few)
    for step in STEPS:
        with FakeVllm(None, ["base"]) as sound, Failing(None, ["base"]) as failing:
            way, calls = ByNccl(trainer, over(sound, failing, weights="nccl", path=None), stand_in := Nccl([])), []
            failing.at, failing.how, stand_in.calls = step, 500, calls
            way.number = 0
            way.leave()
            assert sound.version == way.last == f"{way.run}.0." and way.members == way.servers[:1], step
            assert calls[-1][0] == "broadcast" and [one[1] for one in calls if one[0] == "init"][-1] == 3, step
            if "/pause?mode=abort" in dict(failing.told):
                assert failing.told[-1][0] == "/resume", step
            failing.at, way.number = "", 1
            way.leave()  # it is back, and gets the next
            assert sound.version == failing.version == f"{way.run}.1." and not sound.open and not failing.open, step


def test_servers_that_a_killed_trainer_left_amid_a_transfer_get_the_next(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("vlmr1.grpo.nccl_out.served_weights", lambda *of: {"one": torch.zeros(2)})
    with FakeVllm(None, ["base"]) as server:
        server.version, server.open = "broken", True
        way = ByNccl(grpo(trained, tmp_path), over(server, weights="nccl", path=None), Nccl([]))
        way.number = 0
        way.leave()
        assert server.version == f"{way.run}.0." and not server.open


def test_nothing_is_told_to_a_server_of_another_model(trained, tmp_path):
    with FakeVllm(None, ["somebody's"]) as other:
        way = ByNccl(grpo(trained, tmp_path), over(other, weights="nccl", path=None), Nccl([]))
        with pytest.raises(ValueError, match="serves somebody's, not base"):
            way.bring(0)
        assert not other.told


def test_a_broadcast_that_never_ends_ends_the_run_for_another_start(trained, tmp_path, monkeypatch):
    trainer, stuck = grpo(trained, tmp_path), threading.Event()
    monkeypatch.setattr("vlmr1.grpo.nccl_out.served_weights", lambda *of: {"one": torch.zeros(2)})
    monkeypatch.setattr("vlmr1.grpo.nccl_out.AFTER", 0.1)
    with FakeVllm(None, ["base"]) as sound, Failing(None, ["base"]) as failing:
        way = ByNccl(trainer, over(sound, failing, weights="nccl", path=None), Nccl([]))
        monkeypatch.setattr(way.nccl, "broadcast", lambda *of, **more: stuck.wait(), raising=False)
        failing.at, failing.how = "/update_weights", 500
        with pytest.raises(TransientError, match=r"lost as it took weights: .*/update_weights: it answers 500"):
            way.bring(0)
        stuck.set()
    assert [one.told[-1][0] for one in (sound, failing)] == ["/resume", "/resume"]
