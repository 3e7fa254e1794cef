"""The policy's weights on the servers that sample: brought over before each set of rollouts, and called by a version.

Three ways. `adapter`: LoRA saved, and loaded under a new name. `checkpoint`: a folder of safetensors that the server
reloads in place. `nccl`: from device to device (`vlmr1.grpo.nccl_out`). All processes gather, the first writes and
brings; then all wait for it. A server that was started again has none of it: it is brought the present weights before
it is asked, by whichever process finds it so, as long as they lie in a folder.

A version is never used twice, and tells what answered: an adapter's name stands in each answer, and vLLM's own weight
version is asked before and after it.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from vlmr1.errors import TransientError
from vlmr1.files import digest_of_weights, whole_folder
from vlmr1.launch import is_first, place
from vlmr1.serving.client import DIGITS, Reply, Request, Server, chat, server_at
from vlmr1.serving.vllm import Away, load_adapter, reload, served_by, unload_adapters, version_of, was_told_others
from vlmr1.settings import OverVllm
from vlmr1.watching import label

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer

LOG = logging.getLogger(__name__)
AT_ONCE = 64  # requests under way on a server, which batches them itself
EVERY = 0.5  # seconds between two looks for a server


class WeightsOut(ABC):
    """The servers and the present weights' number, one a set of rollouts."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm) -> None:
        self.trainer, self.settings = trainer, settings
        self.servers = [
            server_at(url, settings.model, timeout=settings.timeout, tries=2, at_once=AT_ONCE, versioned=self.versioned)
            for url in settings.servers
        ]
        (self.run,) = broadcast_object_list(
            [uuid.uuid4().hex[:8]]
        )  # of this start: what an earlier one left is another's
        self.number = -1
        self.looked_at: set[str] = set()  # servers found to be started as rollouts need them
        self.lost: dict[str, str] = {}  # servers that do not answer, and why

    versioned = True  # whether vLLM's own weight version says what answered

    @abstractmethod
    def leave(self) -> None:
        """Take the present weights from the trainer, on every process."""

    @abstractmethod
    def current(self, server: Server) -> bool:
        """Whether a server has the present weights. Raises Away."""

    @abstractmethod
    def give(self, server: Server) -> None:
        """Bring a server the present weights. Raises Away, and ConnectionError where it refuses."""

    def number_of(self, reply: Reply) -> int | None:
        """The number of the weights that answered; None where they were none of this run's, or changed meanwhile."""
        run, _, rest = (reply.weight_version or "").partition(".")
        return int(rest.partition(".")[0]) if run == self.run else None

    def asked(self, server: Server) -> Server:
        """A server as it is asked for the present weights."""
        return server

    def bring(self, number: int) -> None:
        """Bring the present weights to all servers that answer; called on every process, with a number above the last.

        Raises TransientError where no server answers in time.
        """
        self.trainer.accelerator.wait_for_everyone()  # some may still be asking the weights before, for this set
        self.number = number
        try:
            self.leave()
        except Away as error:
            raise TransientError(f"a server was lost as it took weights: {error}; the same command goes on") from error
        if is_first():
            self.ready()
        self.trainer.accelerator.wait_for_everyone()

    def ready(self) -> list[Server]:
        """The servers that have the present weights, as they are asked; waits, with patience, where there is none."""
        until, said = time.monotonic() + self.settings.patience, False
        while True:
            found = [self.asked(server) for server in self.servers if self._has(server)]
            if found:
                return found
            why = "; ".join(f"{url} gives no answer: {fault}" for url, fault in self.lost.items())
            if time.monotonic() > until:
                raise TransientError(f"{why}; start one again, and the same command goes on")
            if not said:
                LOG.warning("no server is left to sample from; waiting up to %g s: %s", self.settings.patience, why)
                said = True
            time.sleep(EVERY)

    def _has(self, server: Server) -> bool:
        """Whether a server is there with the present weights, which it is brought where need be."""
        try:
            if not self.current(server):
                self.give(server)
            if server.url not in self.looked_at:
                self.look_at(server)
        except Away as error:
            if server.url not in self.lost and len(self.servers) > len(self.lost) + 1:
                LOG.warning("%s is left out until it comes back: %s", server.url, error)
            self.lost[server.url] = str(error)
            self.looked_at.discard(server.url)
            return False
        if self.lost.pop(server.url, None) is not None:
            LOG.warning("%s is back, with the present weights", server.url)
        return True

    def look_at(self, server: Server) -> None:
        """Raises ValueError, naming the mend, for a server of another base, or whose log-probs are not the policy's."""
        names, model = served_by(server), self.settings.model
        if model not in names:
            raise ValueError(f"{server.url}: serves {', '.join(sorted(names))}, and grpo.rollout.model is {model}")
        named = {name for name in names if name.startswith(f"{model}@")}
        if named and f"{model}@{digest_of_weights(self.trainer.checkpoint)[:DIGITS]}" not in named:
            raise ValueError(
                f"{server.url}: serves {min(named)}, another base than {self.trainer.checkpoint}; serve that"
            )
        (token,) = self.trainer.family.end_ids[:1]
        only = Request("", max_tokens=1, temperature=1.0, logprobs=True, extra={"allowed_token_ids": [token]})
        try:
            (reply,) = chat([self.asked(server)], [only])
        except ConnectionError as error:
            raise Away(str(error)) from error
        if [round(logp, 6) for one in reply.completions for logp in one.logprobs or ()] != [0.0]:
            raise ValueError(
                f"{server.url}: gives log-probs from before temperature and barred tokens; start it by vlmr1 serve …"
                " --rollouts, or with --logprobs-mode processed_logprobs"
            )
        self.looked_at.add(server.url)

    def close(self) -> None:  # noqa: B027
        """Leave nothing behind that only this run had a use for; there may be nothing."""


class InFolder(WeightsOut):
    """What is common to weights that go through a folder."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm) -> None:
        super().__init__(trainer, settings)
        work = trainer.work.resolve()
        own = f"{label(trainer.work)}-{hashlib.sha256(str(work).encode()).hexdigest()[:8]}"
        self.home = Path(str(settings.path)).resolve() / own
        self.close()

    @property
    def folder(self) -> Path:
        """Where the present weights lie."""
        return self.home / f"{self.run}-{self.number}"

    @abstractmethod
    def write(self, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
        """Write the weights; `state` is the model's where DeepSpeed holds it. Called on the first process."""

    def leave(self) -> None:
        state = self.trainer.gathered()
        if is_first():
            with whole_folder(self.folder) as folder:
                self.write(folder, state)

    def bring(self, number: int) -> None:
        super().bring(number)
        if is_first():
            for old in self.home.iterdir():
                if old != self.folder:
                    shutil.rmtree(old)

    def close(self) -> None:
        if is_first():
            shutil.rmtree(self.home, ignore_errors=True)


class ByAdapter(InFolder):
    """LoRA alone, a new name for each version."""

    versioned = False

    @property
    def name(self) -> str:
        return f"{self.settings.model}.{self.run}.{self.number}"

    def write(self, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
        from vlmr1.adapters import write_adapter  # peft, wanted only here

        write_adapter(self.trainer.model, folder, str(self.trainer.checkpoint), state)

    def current(self, server: Server) -> bool:
        return self.name in served_by(server)

    def give(self, server: Server) -> None:
        load_adapter(server, self.name, str(self.folder))
        unload_adapters(server, f"{self.settings.model}.{self.run}.", but=self.name)

    def asked(self, server: Server) -> Server:
        return replace(server, model=self.name)

    def look_at(self, server: Server) -> None:
        super().look_at(server)
        if was_told_others(server):
            raise ValueError(f"{server.url}: holds weights of a run by checkpoint or nccl; start it again")

    def number_of(self, reply: Reply) -> int | None:
        beginning, _, number = (reply.model or "").rpartition(".")
        return int(number) if beginning == f"{self.settings.model}.{self.run}" else None


class ByCheckpoint(InFolder):
    """All weights, an adapter's merged into them, reloaded in place."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm) -> None:
        super().__init__(trainer, settings)
        self.given = count()

    def write(self, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
        weights = {name: one.contiguous() for name, one in served_weights(self.trainer, state).items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.trainer.bare.config.save_pretrained(folder)

    def current(self, server: Server) -> bool:
        return version_of(server).startswith(f"{self.run}.{self.number}.")

    def give(self, server: Server) -> None:
        reload(server, str(self.folder), f"{self.run}.{self.number}.{place()[0]}-{next(self.given)}")


def served_weights(trainer: GrpoTrainer, state: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """The policy's weights under a checkpoint's names, an adapter's merged, in the arithmetic's dtype.

    What is tied stands there twice: a server that packs its weights (vLLM's for the CPU) holds two copies, and without
    its own the head would keep the old one.
    """
    bare = trainer.bare
    if trainer.lora is not None:
        from vlmr1.adapters import merged_weights

        whole = merged_weights(trainer.model, state)
    else:
        whole = trainer.untied(bare.state_dict() if state is None else state)
    dtype = trainer.device.torch_dtype
    whole = {name: one.detach().to(dtype) if one.is_floating_point() else one for name, one in whole.items()}
    whole |= {tied: whole[source].clone() for tied, source in bare.all_tied_weights_keys.items()}
    return revert_weight_conversion(bare, whole)


def weights_out(trainer: GrpoTrainer, settings: OverVllm) -> WeightsOut:
    """The way that the settings name. Raises ValueError where the trainer's device has it not."""
    if settings.weights == "adapter":
        return ByAdapter(trainer, settings)
    if settings.weights == "checkpoint":
        return ByCheckpoint(trainer, settings)
    from vlmr1.grpo.nccl_out import ByNccl

    return ByNccl(trainer, settings)
