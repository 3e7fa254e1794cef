"""The policy's weights on the servers that sample: brought over before each set of rollouts, and called by a version.

Three ways. `adapter`: LoRA saved, and loaded under a new name. `checkpoint`: a folder of safetensors that the server
reloads in place (both: `vlmr1.grpo.folder_out`). `nccl`: from device to device (`vlmr1.grpo.nccl_out`). All processes
gather, the first writes and brings; then all wait for it. A server that was started again has none of it: it is brought
the present weights before it is asked, by whichever process finds it so, as long as they lie in a folder. None is told
anything before it is seen to serve the right model of the right base. A server that fails, or refuses, is left out
until it does not, and one that says nothing holds nobody up a second time; only where none is left that is an error.

A version is never used twice, and tells what answered: an adapter's name stands in each answer, and vLLM's own weight
version is asked before and after it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list
from transformers.core_model_loading import revert_weight_conversion

from vlmr1.errors import TransientError
from vlmr1.files import digest_of_weights, write_json
from vlmr1.interruptions import STOPPED
from vlmr1.launch import is_first
from vlmr1.serving.client import DIGITS, Refused, Reply, Request, Server, chat, server_at
from vlmr1.serving.vllm import Away, serve_line, served_by
from vlmr1.settings import OverVllm
from vlmr1.watching import label

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer

LOG = logging.getLogger(__name__)
AT_ONCE = 64  # requests under way on a server, which batches them itself
EVERY = 0.5  # seconds between two looks for a server
GRACE = 2.0  # seconds in which one that was lost may be back, while others are there
NAMED = "weights-out.json"  # in the work folder: {"id": what tells its weights from those of any other}


class WeightsOut(ABC):
    """The servers and the present weights' number, one a set of rollouts."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm) -> None:
        self.trainer, self.settings = trainer, settings
        self.model = settings.model or trainer.checkpoint.resolve().name
        self.servers = [
            server_at(url, self.model, timeout=settings.timeout, tries=2, at_once=AT_ONCE, versioned=self.versioned)
            for url in settings.servers
        ]
        # `own` names the work folder, wherever it lies, `run` this start: what an earlier one left is another's.
        mine = [_named(trainer.work), uuid.uuid4().hex[:8]] if is_first() else [None, None]
        self.own, self.run = broadcast_object_list(mine)
        self.number = -1
        self.looked_at: set[str] = set()  # servers found to be started as rollouts need them
        self.lost: dict[str, Exception] = {}  # servers that do not answer, or refuse, and why
        self.looks: dict[str, tuple[int, Future[Exception | None]]] = {}  # under way: for which weights, and why not

    versioned = True  # whether vLLM's own weight version says what answered

    @abstractmethod
    def leave(self) -> None:
        """Take the present weights from the trainer, on every process."""

    @abstractmethod
    def current(self, server: Server) -> bool:
        """Whether a server has the present weights. Raises Away, and Refused where it will not say."""

    @abstractmethod
    def give(self, server: Server) -> None:
        """Bring a server the present weights. Raises Away, and Refused where it will not take them."""

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

    def ready(self, hurried: threading.Event | None = None) -> list[Server]:
        """The servers that have the present weights, as they are asked; waits, with patience, where there is none.

        Not once `hurried` is set. Raises TransientError then, and ValueError where a person must mend every one;
        SystemExit after SIGTERM, for a step that nobody samples for cannot be finished.
        """
        until, said = time.monotonic() + self.settings.patience, False
        while True:
            self._look()
            if found := [self.asked(server) for server in self.servers if server.url not in self.lost]:
                return found
            why = "; ".join(f"{url} gives no answer: {fault}" for url, fault in self.lost.items())
            if not self.looks and all(isinstance(fault, ValueError) for fault in self.lost.values()):
                raise ValueError("; ".join(map(str, self.lost.values())))
            if time.monotonic() > until or (hurried is not None and hurried.is_set()):
                raise TransientError(f"{why}; start one again, and the same command goes on")
            if hurried is None and self.trainer.stops.asked:
                print(f"{label(self.trainer.work)}: stopped as it waited for a server; the same command goes on")
                sys.exit(STOPPED)
            if not said:
                LOG.warning("no server is left to sample from; waiting up to %g s: %s", self.settings.patience, why)
                said = True
            (hurried or threading.Event()).wait(EVERY)

    def _look(self) -> None:
        """Look at all servers at once; nobody waits long for one that was lost before while there are others.

        A look at such a one goes on by itself, and what it found counts when it is over.
        """
        begun = set()
        for server in self.servers:
            if server.url in self.looks and self.looks[server.url][1].done():  # since the last time
                self._note(server, self.looks.pop(server.url)[1].result())
            if server.url not in self.looks:
                self.looks[server.url] = self.number, self._begin(server)
                begun.add(server.url)
        known = {server.url for server in self.servers if server.url not in self.lost}
        looks = {url: look for url, (_, look) in self.looks.items()}
        if known:
            wait([looks[url] for url in known])
            wait([looks[url] for url in begun], GRACE)
        else:
            wait(looks.values(), EVERY, FIRST_COMPLETED)
        for server in self.servers:
            number, look = self.looks[server.url]
            if look.done() and number == self.number:
                del self.looks[server.url]
                self._note(server, look.result())

    def _begin(self, server: Server) -> Future[Exception | None]:
        """`_try` in a thread that the end of the program does not wait for."""
        look: Future[Exception | None] = Future()

        def run() -> None:
            try:
                look.set_result(self._try(server))
            except BaseException as error:
                look.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return look

    def _try(self, server: Server) -> Exception | None:
        """See that a server is there with the present weights, bringing them where need be; or why it is not.

        A ValueError is what a person must mend.
        """
        try:
            current = self.current(server)
            if not current or server.url not in self.looked_at:
                self.recognise(server)
            if not current:
                self.give(server)
            if server.url not in self.looked_at:
                self.look_at(server)
        except Refused as error:
            return ValueError(str(error)) if error.lasting else error
        except (ConnectionError, ValueError) as error:
            return error
        return None

    def _note(self, server: Server, fault: Exception | None) -> None:
        """Know who is lost, and say once who went and who came back."""
        before = self.lost.pop(server.url, None)
        if fault is not None:
            if before is None and len(self.servers) > len(self.lost) + 1:
                LOG.warning("%s is left out until it comes back: %s", server.url, fault)
            self.lost[server.url] = fault
            self.fell(server)
        elif before is not None:
            LOG.warning("%s is back, with the present weights", server.url)

    def fell(self, server: Server) -> None:
        """Look again at how a server was started before it is asked the next time."""
        self.looked_at.discard(server.url)

    @cached_property
    def base(self) -> str:
        """The beginning of the base's digest, as in served names."""
        return digest_of_weights(self.trainer.checkpoint)[:DIGITS]

    def recognise(self, server: Server) -> None:
        """Raises ValueError, naming the mend, for a server of another model or base, which is told nothing."""
        names, model = served_by(server), self.model
        if model not in names:
            there = ", ".join(sorted(names))
            raise ValueError(f"{server.url}: serves {there}, not {model}; set grpo.rollout.model to the base's name")
        named = {name for name in names if name.startswith(f"{model}@")}
        if named and f"{model}@{self.base}" not in named:
            line = f"{serve_line(self.trainer.checkpoint, server.url, model)} --rollouts {self.settings.weights}"
            lora = self.trainer.lora if self.settings.weights == "adapter" else None
            rank = "" if lora is None else f" --rank {lora.r}"
            raise ValueError(
                f"{server.url}: serves {min(named)}, another base than {self.trainer.checkpoint}; stop it, and"
                f" `{line}{rank}`"
            )

    def look_at(self, server: Server) -> None:
        """Raises ValueError, naming the mend, for a server whose log-probs are not the policy's."""
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
        """Leave nothing behind that only this run had a use for; on the first process, whatever became of the run."""


def _named(work: Path) -> str:
    """What a work folder's weights are called by, drawn once: two folders of one path, on two machines, differ."""
    path = work / NAMED
    if not path.is_file():
        write_json(path, {"id": uuid.uuid4().hex[:12]})
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def served_weights(trainer: GrpoTrainer, state: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """The policy's weights under a checkpoint's names, an adapter's merged, in the arithmetic's dtype, on the CPU.

    One after the other: beside the policy the device never holds more than one of them.

    What is tied stands there twice: a server that packs its weights (vLLM's for the CPU) holds two copies, and without
    its own the head would keep the old one.
    """
    bare, dtype = trainer.bare, trainer.device.torch_dtype
    if trainer.lora is not None:
        from vlmr1.adapters import each_merged

        found = each_merged(trainer.model, state)
    else:
        found = iter(trainer.untied(bare.state_dict() if state is None else state).items())
    whole = {name: one.detach().to("cpu", dtype if one.is_floating_point() else None) for name, one in found}
    whole |= {tied: whole[source].clone() for tied, source in bare.all_tied_weights_keys.items()}
    return revert_weight_conversion(bare, whole)


def weights_out(trainer: GrpoTrainer, settings: OverVllm) -> WeightsOut:
    """The way that the settings name. Raises ValueError where the trainer's device has it not."""
    from vlmr1.grpo.folder_out import ByAdapter, ByCheckpoint
    from vlmr1.grpo.nccl_out import ByNccl

    return {"adapter": ByAdapter, "checkpoint": ByCheckpoint, "nccl": ByNccl}[settings.weights](trainer, settings)
