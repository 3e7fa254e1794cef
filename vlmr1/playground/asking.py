"""Whom the page asks: a checkpoint in this process, or a model behind an OpenAI-compatible server. Answers stream.

A server's pictures are resized as its family does where `--like` names a checkpoint folder of that family, which also
says in which frame boxes are spoken; without it they go as they are, and boxes are read as the picture's own pixels.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vlmr1.boxes import Size
from vlmr1.playground.questions import Question
from vlmr1.serving.client import Server
from vlmr1.serving.connections import asynchronous
from vlmr1.serving.messages import Request
from vlmr1.serving.stream import stream

if TYPE_CHECKING:
    from vlmr1.families.base import Family

EVERY = 0.2  # seconds in which somebody who does not wait any more is noticed
HALF = "\ufffd"  # what the first bytes of a character decode to until the others are there


class Stopped(Exception):
    """Whoever asked does not wait any more."""


@dataclass(frozen=True)
class Said:
    """A completion, the frame (width, height) of its boxes, and how many tokens it has."""

    text: str
    frame: Size
    tokens: int | None


class Asked(Protocol):
    """A model to ask. `told` hears of the text as it grows, and may raise Stopped."""

    name: str  # in full
    names: tuple[str, ...]  # shorter ones, the shortest first
    note: str  # what people should know of its answers, or ""

    def ask(self, question: Question, told: Callable[[str], object]) -> Said: ...


def told_apart(models: Sequence[Asked]) -> list[tuple[str, Asked]]:
    """Each with the shortest of its names that no other has."""
    have = Counter(name for model in models for name in {*model.names, model.name})
    return [(next((name for name in model.names if have[name] == 1), model.name), model) for model in models]


class Local:
    """A checkpoint, held in this process on the device and in the dtype of `vlmr1 evaluate`; one question at a time."""

    note = ""

    def __init__(self, name: str, checkpoint: Path) -> None:
        """Raises ValueError for a folder that is no checkpoint."""
        from vlmr1.device import settle
        from vlmr1.evaluation.alone import defaults
        from vlmr1.families import load_family
        from vlmr1.grpo.policy import Policy, prepare

        if (checkpoint / "adapter_config.json").is_file() and not (checkpoint / "config.json").is_file():
            raise ValueError(f"{checkpoint}: is an adapter; `vlmr1 merge` makes a checkpoint of it")
        self.name, self.alone = name, threading.Lock()
        self.names = tuple("/".join(Path(name).parts[-many:]) for many in (1, 2))
        self.family = load_family(checkpoint, None)
        device = settle(defaults().compute)
        model = self.family.load_model(checkpoint, device.torch_dtype).to(device.place).eval()
        shared = prepare(model, self.family, True, device.attention) is None
        self.policy = Policy(model, model, self.family, 1.0, shared, device.place)

    def ask(self, question: Question, told: Callable[[str], object]) -> Said:
        """Raises ValueError for what the model cannot be asked, FloatingPointError for broken weights."""
        from vlmr1.grpo.rollout import sample_completions
        from vlmr1.grpo.sampling import Sampling

        keys = question.sample.images
        prompt = self.family.encode(question.prompt, question.pictures, keys)
        ids: list[int] = []

        def heard(newest: list[int]) -> None:
            ids.extend(newest)
            told(self.family.decode(ids).rstrip(HALF))

        while not self.alone.acquire(timeout=EVERY):
            told("")
        try:
            sampling = Sampling(question.temperature, question.longest)
            ((whole,),) = sample_completions(self.policy, [prompt], 1, sampling, [question.seed], told=heard)
        finally:
            self.alone.release()
        tokens = sum(token not in self.family.end_ids for token in whole)
        return Said(self.family.decode(whole), prompt.size, tokens)


class Served:
    """A model behind a server."""

    def __init__(self, server: Server, like: Family | None) -> None:
        self.name, self.server, self.like = str(server), server, like
        self.names: tuple[str, ...] = (server.model.rpartition("/")[2], server.model)
        self.note = "" if like else "pictures go as they are, boxes are read as their pixels; --like names a checkpoint"

    def ask(self, question: Question, told: Callable[[str], object]) -> Said:
        """Raises ConnectionError where the server cannot be reached or refuses."""
        pictures, frame = question.pictures, question.pictures[0].size
        if self.like is not None:
            frame = self.like.picture(pictures[0], "first").size
            pictures = tuple(self.like.seen(picture) for picture in pictures)
        seed = question.seed if question.temperature else None
        request = Request(question.prompt, pictures, question.longest, question.temperature, seed=seed)
        opened = "" if self.like is None else self.like.opened
        return asyncio.run(self._heard(request, Said(opened, frame, None), told))

    async def _heard(self, request: Request, said: Said, told: Callable[[str], object]) -> Said:
        async with asynchronous() as client:
            pieces = stream(client, self.server, request)
            coming = asyncio.ensure_future(anext(pieces, None))
            try:
                while True:
                    if not (await asyncio.wait({coming}, timeout=EVERY))[0]:
                        told(said.text)  # which raises Stopped in a silence too
                    elif (piece := coming.result()) is None:
                        return said
                    else:
                        tokens = said.tokens if piece.tokens is None else piece.tokens
                        said = Said(said.text + piece.text, said.frame, tokens)
                        told(said.text)
                        coming = asyncio.ensure_future(anext(pieces, None))
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
