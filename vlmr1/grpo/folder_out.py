"""Weights to servers through a folder that both see by one name: an adapter hot-loaded, or a checkpoint reloaded.

The folder has a name of its own for each work folder (`WeightsOut.own`), wherever that lies, and nothing but it is ever
removed: two runs may share `path`. Left out on purpose: sending files to a server that does not see it.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from vlmr1.files import whole_folder
from vlmr1.grpo.gathered import gathered_trained
from vlmr1.grpo.weights_out import WeightsOut, served_weights
from vlmr1.launch import is_first, place
from vlmr1.serving.client import Reply, Server
from vlmr1.serving.vllm import (
    SOON,
    Away,
    NotTaken,
    load_adapter,
    reload,
    served_by,
    unload_adapters,
    version_of,
    was_told_others,
)
from vlmr1.settings import OverVllm
from vlmr1.watching import label

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer


class InFolder(WeightsOut):
    """What is common to weights that go through a folder."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm) -> None:
        super().__init__(trainer, settings)
        self.home = Path(str(settings.path)).resolve() / f"{label(trainer.work)}-{self.own}"
        if is_first():
            shutil.rmtree(self.home, ignore_errors=True)  # what an earlier start of this very run left
        self.seen = False  # whether any server ever took weights from there

    @property
    def folder(self) -> Path:
        """Where the present weights lie."""
        return self.home / f"{self.run}-{self.number}"

    @abstractmethod
    def write(self, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
        """Write the weights; `state` is the model's where DeepSpeed holds it. Called on the first process."""

    @abstractmethod
    def load(self, server: Server) -> None:
        """Have a server read them. Raises NotTaken where it cannot."""

    def give(self, server: Server) -> None:
        folder = self.folder
        try:
            self.load(server)
        except NotTaken as error:
            said = f"{error}; does it see {folder} (grpo.rollout.path)?"
            raise (Away(said) if self.seen else ValueError(said)) from error

    def gathered(self) -> dict[str, torch.Tensor] | None:
        """What `write` needs of a model that DeepSpeed holds; called on every process."""
        return self.trainer.gathered()

    def leave(self) -> None:
        state = self.gathered()
        if is_first():
            with whole_folder(self.folder) as folder:
                self.write(folder, state)

    def bring(self, number: int) -> None:
        super().bring(number)
        self.seen = True
        if is_first():
            for old in self.home.iterdir():
                if old != self.folder:
                    shutil.rmtree(old)

    def close(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)


class ByAdapter(InFolder):
    """LoRA alone, a new name for each version."""

    versioned = False

    @property
    def name(self) -> str:
        return f"{self._beginning}{self.run}.{self.number}"

    @property
    def _beginning(self) -> str:
        """How the names of all adapters of this work folder begin, those of an earlier start too."""
        return f"{self.model}.{self.own}."

    def gathered(self) -> dict[str, torch.Tensor] | None:
        """The adapter alone: what does not train is never put together."""
        return gathered_trained(self.trainer.model) if self.trainer.is_deepspeed_enabled else None

    def write(self, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
        from vlmr1.adapters import write_adapter  # peft, wanted only here

        write_adapter(self.trainer.model, folder, str(self.trainer.checkpoint), state)

    def current(self, server: Server) -> bool:
        return self.name in served_by(server)

    def load(self, server: Server) -> None:
        name = self.name  # not another while a server takes its time
        load_adapter(server, name, str(self.folder))
        unload_adapters(server, self._beginning, but=name)

    def close(self) -> None:
        super().close()
        for server in self.servers:
            if server.url not in self.lost:
                with suppress(ConnectionError):  # one that is away has forgotten them
                    unload_adapters(replace(server, timeout=min(SOON, server.timeout)), self._beginning)

    def asked(self, server: Server) -> Server:
        return replace(server, model=self.name)

    def recognise(self, server: Server) -> None:
        super().recognise(server)
        if was_told_others(server):
            raise ValueError(f"{server.url}: holds weights of a run by checkpoint or nccl; start it again")

    def number_of(self, reply: Reply) -> int | None:
        beginning, _, number = (reply.model or "").rpartition(".")
        return int(number) if beginning == f"{self._beginning}{self.run}" else None


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

    def load(self, server: Server) -> None:
        version = f"{self.run}.{self.number}.{place()[0]}-{next(self.given)}"  # before the folder: never too new a name
        reload(server, str(self.folder), version)
