"""Weights by vLLM's weight-transfer API: what the servers are told, in which order."""

import pytest
import torch

from tests.fake_server import FakeVllm
from tests.test_remote_rollout import over
from tests.test_training import grpo
from vlmr1.grpo.nccl_out import ByNccl


def test_nccl_asks_for_what_vllm_knows(trained, tmp_path):
    """The requests' order, and the group's places; the transport is a stand-in, for it needs devices."""
    calls, trainer = [], grpo(trained, tmp_path)

    class Nccl:
        def unique_id(self):
            return bytes(range(128))

        def init_rank(self, world, unique, rank):
            calls.append(("init", world, len(unique), rank))
            return "group"

        def all_reduce(self, tensors, comms):
            calls.append(("all_reduce", tensors[0].shape, comms))

        def broadcast(self, tensors, root, comms):
            calls.append(("broadcast", tensors[0].shape, tensors[0].dtype, root, comms))

    with FakeVllm(None, ["base"]) as first, FakeVllm(None, ["base"]) as second:
        settings = over(first, second, weights="nccl", path=None)
        with pytest.raises(ValueError, match=r"nccl needs CUDA devices, and this is cpu"):
            ByNccl(trainer, settings)
        way = ByNccl(trainer, settings, Nccl())
        for number in (0, 1):
            way.bring(number)
        assert len(way.ready()) == 2 and first.version == second.version == f"{way.run}.1."
        told, joined = second.told, [dict(one.told)["/init_weight_transfer_engine"] for one in (first, second)]
    assert [one["init_info"]["rank_offset"] for one in joined] == [1, 3]  # two workers each
    assert {one["init_info"]["world_size"] for one in joined} == {5} and not joined[0]["init_info"]["packed"]
    sent = ["/pause?mode=abort", "/update_weight_version", "/start_weight_update", "/update_weights"]
    sent += ["/finish_weight_update", "/reset_mm_cache", "/reset_encoder_cache", "/reset_prefix_cache", "/resume"]
    assert [path for path, _ in told[:2]] == ["/shutdown_weight_transfer_engine", "/init_weight_transfer_engine"]
    assert [path for path, _ in told[2:]] == [*sent, *sent]
    about = dict(told)["/update_weights"]["update_info"]
    assert "lm_head.weight" in about["names"] and "model.embed_tokens.weight" in about["names"]  # a checkpoint's names
    assert set(about["dtype_names"]) == {"float32"} and len(about["names"]) == len(trainer.bare.state_dict())
    assert calls[:2] == [("init", 5, 128, 0), ("all_reduce", torch.Size([1]), ["group"])]
    assert [list(one[1]) for one in calls[2:]] == 2 * about["shapes"]
