"""Weights to vLLM from device to device, by its weight-transfer API with the backend nccl (0.32).

The trainer's first process is rank 0 of an NCCL group of its own, the servers' workers follow in the order of the
servers. It joins by a unique id, which travels to the servers in base64 beside their places, so that nothing of vLLM
is needed here; both sides must load the same NCCL, as those with the same PyTorch do. Each weight is one broadcast,
under its checkpoint name, in the arithmetic's dtype.

A group does not outlive any of its members: it is made anew when a server went or came back, before the next weights.
A server that fails on the way is dropped, the others are let go on, and get the weights in a group without it. vLLM
leaves no group and begins no transfer while one is open, so one that broke off is finished first, as "broken". Where
this process itself hangs in a broadcast, for which NCCL has no end, the run does, and goes on from its checkpoint.
Left out on purpose: giving the present weights to a server that comes back in the middle of a set of rollouts; it
waits for the next. Not run on any hardware: the requests are tested against a fake server, the rest was read.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vlmr1.grpo.weights_out import GRACE, WeightsOut, served_weights
from vlmr1.launch import is_first
from vlmr1.serving.client import Server
from vlmr1.serving.vllm import SOON, Away, tell, version_of, workers_of
from vlmr1.settings import OverVllm

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer


LOG = logging.getLogger(__name__)
EVERY = 0.02  # seconds between two looks at who has ended
AFTER = 10.0  # seconds that the others have to end once one has failed


class Dropped(Exception):
    """Servers that failed, and why; the group that they were of is no more."""

    def __init__(self, faults: Mapping[Server, Exception]) -> None:
        super().__init__("; ".join(f"{server.url}: {fault}" for server, fault in faults.items()))
        self.servers = set(faults)


class ByNccl(WeightsOut):
    """All weights, an adapter's merged into them, broadcast to the servers' devices."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm, nccl: Any = torch.cuda.nccl) -> None:
        """`nccl` is PyTorch's. Raises ValueError where the trainer's device has none."""
        if nccl is torch.cuda.nccl and trainer.device.kind != "cuda":
            raise ValueError(f"grpo.rollout.weights: nccl needs CUDA devices, and this is {trainer.device.kind}")
        super().__init__(trainer, settings)
        if nccl is torch.cuda.nccl and is_first():
            LOG.warning("grpo.rollout.weights: nccl has not been run on any hardware; compare sampler/difference")
        self.nccl, self.group = nccl, None
        self.members: list[Server] = []
        self.last = ""  # version that the members have

    def leave(self) -> None:
        state = self.trainer.gathered()
        if not is_first():
            return
        weights = served_weights(self.trainer, state)
        there = [server for server in self.servers if self._is_there(server)]
        while there:  # with none of them back `ready` waits and says so
            try:
                if self.group is None or there != self.members or any(self._version(one) != self.last for one in there):
                    self._join(there)
                self._send(weights)
                return
            except Dropped as error:
                LOG.warning("weights go to the other servers, for one failed: %s", error)
                self.group = None
                there = [server for server in there if server not in error.servers]

    def current(self, server: Server) -> bool:
        return version_of(server) == f"{self.run}.{self.number}."

    def give(self, server: Server) -> None:
        raise Away("it came back without the present weights, and gets the next")

    def _is_there(self, server: Server) -> bool:
        """Whether it answers, and serves what may take these weights; `ready` says why not."""
        within = min(GRACE if server.url in self.lost else SOON, server.timeout)
        try:
            self.recognise(replace(server, timeout=within))
        except (ConnectionError, ValueError):
            return False
        return True

    def _version(self, server: Server) -> str:
        """What it calls its weights; nothing where it does not say."""
        try:
            return version_of(server)
        except ConnectionError:
            return ""

    def _each(self, servers: list[Server], *paths: str, body: dict[str, Any] | None = None, **query: str) -> None:
        """Tell each of the servers the same. Raises Dropped, when all have been told, for those that failed."""
        faults: dict[Server, Exception] = {}
        for server in servers:
            try:
                for path in paths:
                    tell(server, path, body, **query)
            except ConnectionError as error:
                faults[server] = error
        if faults:
            raise Dropped(faults)

    def _join(self, servers: list[Server]) -> None:
        """Make a group of this process and the servers' workers."""
        for server in servers:
            if self._version(server) == "broken":
                with suppress(ConnectionError):  # most often none is open
                    tell(server, "finish_weight_update", {"weight_version": "broken"})
        self._each(servers, "shutdown_weight_transfer_engine")  # of a former group
        offsets, world = [], 1
        for server in servers:
            offsets.append(world)
            try:
                world += workers_of(server)
            except ConnectionError as error:
                raise Dropped({server: error}) from error
        unique = self.nccl.unique_id()
        about = {"nccl_unique_id_b64": base64.b64encode(unique).decode(), "world_size": world, "packed": False}

        def enter() -> None:
            with self._on_device():
                self.group = self.nccl.init_rank(world, unique, 0)
                one = torch.zeros(1, device=self.trainer.args.device)
                self.nccl.all_reduce([one], comms=[self.group])  # every member's first act
                _wait(one)

        info = {server: about | {"rank_offset": at} for server, at in zip(servers, offsets, strict=True)}

        def join(server: Server) -> Callable[[], object]:
            return lambda: tell(server, "init_weight_transfer_engine", {"init_info": info[server]})

        self._together(enter, {server: join(server) for server in servers})
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

        def take(server: Server) -> Callable[[], object]:
            return lambda: tell(server, "update_weights", {"update_info": about})

        self.last = f"{self.run}.{self.number}."
        members = self.members
        try:
            self._each(members, "update_weight_version", body={"new_version": "broken"})
            self._each(members, "pause", mode="abort")
            self._each(members, "start_weight_update")
            self._together(send, {server: take(server) for server in members})
            self._each(members, "finish_weight_update", body={"weight_version": self.last})
            self._each(members, "reset_mm_cache", "reset_encoder_cache", "reset_prefix_cache", "resume")
        except BaseException:
            for server in members:  # nobody is left paused: what they have now is called "broken", and not asked
                with suppress(ConnectionError):
                    tell(replace(server, timeout=min(SOON, server.timeout)), "resume")
            raise

    def _on_device(self) -> Any:
        device = self.trainer.args.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _together(self, own: Callable[[], object], of: Mapping[Server, Callable[[], object]]) -> None:
        """Do this process's part and the servers' at once, for they wait for each other; little once one has failed.

        Raises Dropped for servers that failed, Away where this process's part does not end, and what it raised alone.
        """
        errors: dict[Server | None, Exception] = {}
        failed = threading.Event()

        def run(who: Server | None, call: Callable[[], object]) -> None:
            try:
                call()
            except Exception as error:
                errors[who] = error
                failed.set()

        calls: dict[Server | None, Callable[[], object]] = {None: own} | dict(of)
        threads = {who: threading.Thread(target=run, args=(who, call), daemon=True) for who, call in calls.items()}
        for thread in threads.values():
            thread.start()
        until = time.monotonic() + self.settings.timeout
        while time.monotonic() < until and any(thread.is_alive() for thread in threads.values()):
            if failed.wait(EVERY) and errors:
                until = min(until, time.monotonic() + AFTER)
                failed.clear()
        late = {who for who, thread in threads.items() if thread.is_alive()}
        if None in late:
            raise Away("; ".join(map(str, errors.values())) or f"no weights went over in {self.settings.timeout:g} s")
        faults = {who: errors.get(who, TimeoutError("no end in time")) for who in of if who in late or who in errors}
        if faults:
            raise Dropped(faults)
        if None in errors:
            raise errors[None]


def _wait(tensor: torch.Tensor) -> None:
    """Until what was asked of its device is done."""
    if tensor.is_cuda:
        torch.cuda.current_stream().synchronize()
