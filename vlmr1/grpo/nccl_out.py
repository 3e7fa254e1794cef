"""Weights to vLLM from device to device, by its weight-transfer API with the backend nccl (0.32).

The trainer's first process is rank 0 of an NCCL group of its own, the servers' workers follow in the order of the
servers. It joins by a unique id, which travels to the servers in base64 beside their places, so that nothing of vLLM
is needed here; both sides must load the same NCCL, as those with the same PyTorch do. Each weight is one broadcast,
under its checkpoint name, in the arithmetic's dtype.

A group does not outlive any of its members: it is made anew when a server went or came back, before the next weights.
Left out on purpose: giving the present weights to a server that comes back in the middle of a set of rollouts; it
waits for the next. Not run on any hardware: the requests are tested against a fake server, the rest was read.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from vlmr1.grpo.weights_out import WeightsOut, served_weights
from vlmr1.launch import is_first
from vlmr1.serving.client import Server
from vlmr1.serving.vllm import Away, tell, version_of, workers_of
from vlmr1.settings import OverVllm

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer


class ByNccl(WeightsOut):
    """All weights, an adapter's merged into them, broadcast to the servers' devices."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm, nccl: Any = torch.cuda.nccl) -> None:
        """`nccl` is PyTorch's. Raises ValueError where the trainer's device has none."""
        if nccl is torch.cuda.nccl and trainer.device.kind != "cuda":
            raise ValueError(f"grpo.rollout.weights: nccl needs CUDA devices, and this is {trainer.device.kind}")
        super().__init__(trainer, settings)
        self.nccl, self.group = nccl, None
        self.members: list[Server] = []
        self.last = ""  # version that the members have

    def leave(self) -> None:
        state = self.trainer.gathered()
        if not is_first():
            return
        weights = served_weights(self.trainer, state)
        there = [server for server in self.servers if self._is_there(server)]
        if not there:
            return  # `ready` waits and says so; with none of them back the run ends, and goes on from its checkpoint
        if self.group is None or there != self.members or any(version_of(one) != self.last for one in there):
            self._join(there)
        self._send(weights)

    def current(self, server: Server) -> bool:
        return version_of(server) == f"{self.run}.{self.number}."

    def give(self, server: Server) -> None:
        raise Away("it came back without the present weights, and gets the next")

    def _is_there(self, server: Server) -> bool:
        try:
            return bool(version_of(server))
        except Away:
            return False

    def _join(self, servers: list[Server]) -> None:
        """Make a group of this process and the servers' workers."""
        for server in servers:
            tell(server, "shutdown_weight_transfer_engine")  # of a former group
        offsets, world = [], 1
        for server in servers:
            offsets.append(world)
            world += workers_of(server)
        unique = self.nccl.unique_id()
        about = {"nccl_unique_id_b64": base64.b64encode(unique).decode(), "world_size": world, "packed": False}

        def enter() -> None:
            with self._on_device():
                self.group = self.nccl.init_rank(world, unique, 0)
                one = torch.zeros(1, device=self.trainer.args.device)
                self.nccl.all_reduce([one], comms=[self.group])  # every member's first act
                _wait(one)

        self._together(
            enter,
            *(
                lambda one=server, at=offset: tell(  # type: ignore[misc]
                    one, "init_weight_transfer_engine", {"init_info": about | {"rank_offset": at}}
                )
                for server, offset in zip(servers, offsets, strict=True)
            ),
        )
        self.members = servers

    def _send(self, weights: dict[str, torch.Tensor]) -> None:
        """Broadcast the weights; the servers answer nothing meanwhile, and forget what they knew by the old ones."""
        about = {
            "names": list(weights),
            "dtype_names": [str(one.dtype).removeprefix("torch.") for one in weights.values()],
            "shapes": [list(one.shape) for one in weights.values()],
        }

        def send() -> None:
            with self._on_device():
                for one in weights.values():
                    there = one.detach().to(self.trainer.args.device).contiguous()
                    self.nccl.broadcast([there], root=0, comms=[self.group])
                _wait(there)

        for server in self.members:
            tell(server, "pause", mode="abort")
            tell(server, "update_weight_version", {"new_version": "broken"})
            tell(server, "start_weight_update")
        self._together(
            send,
            *(lambda one=server: tell(one, "update_weights", {"update_info": about}) for server in self.members),  # type: ignore[misc]
        )
        self.last = f"{self.run}.{self.number}."
        for server in self.members:
            tell(server, "finish_weight_update", {"weight_version": self.last})
            tell(server, "reset_mm_cache")
            tell(server, "reset_encoder_cache")
            tell(server, "reset_prefix_cache")
            tell(server, "resume")

    def _on_device(self) -> Any:
        device = self.trainer.args.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _together(self, *calls: Callable[[], object]) -> None:
        """Do the calls at once, for they wait for each other. One that fails leaves the others waiting: the run ends.

        Raises the first error, Away where they take longer than a server may.
        """
        ended = threading.Semaphore(0)
        errors: list[Exception] = []

        def run(call: Callable[[], object]) -> None:
            try:
                call()
            except Exception as error:
                errors.append(error)
            ended.release()

        for call in calls:
            threading.Thread(target=run, args=(call,), daemon=True).start()
        for _ in calls:
            late = not ended.acquire(timeout=self.settings.timeout)
            if errors or late:
                self.group = None
                raise errors[0] if errors else Away(f"no weights went over within {self.settings.timeout:g} s")


def _wait(tensor: torch.Tensor) -> None:
    """Until what was asked of its device is done."""
    if tensor.is_cuda:
        torch.cuda.current_stream().synchronize()
