"""bench-serve: how fast servers answer questions about pictures, at several numbers of requests under way.

Every request, of a server's warm-up too, has a picture that no server has seen before, so that none answers from what
it remembers; all ask for the same number of tokens. Each level is measured in several rounds, and in each round the
servers take turns at every level, first the one, then the other, so that a machine that slows down slows them alike.
Failures, and answers of another length, count against the success rate and nothing else; a server that has stopped
answering ends the measurement.
Left out on purpose: arrival processes other than so many clients that each wait for their answer.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import httpx
from PIL import Image

from vlmr1.serving.client import Refused, Server, Stumbled
from vlmr1.serving.connections import asynchronous
from vlmr1.serving.messages import Request
from vlmr1.serving.stream import stream

QUESTION = "Describe everything in this picture, from left to right."
EACH = 2  # requests of a level's round, at least, for each one under way
IN_A_ROW = 4  # failures after which a server counts as gone, or as many as are under way where that is more


@dataclass(frozen=True)
class Load:
    """What a server is asked for."""

    concurrency: tuple[int, ...]
    rounds: int = 7
    least: int = 4  # requests of a level's round
    size: tuple[int, int] = (640, 640)  # of the pictures, (width, height)
    tokens: int = 512  # of an answer
    exactly: bool = True  # asks for `ignore_eos`, which vLLM, vllm-ascend and SGLang know
    seed: int = 0

    def requests(self, at_once: int) -> int:
        """How many a round of this level has."""
        return max(self.least, EACH * at_once)

    @property
    def total(self) -> int:
        """Requests that one server is measured by."""
        return self.rounds * sum(map(self.requests, self.concurrency))


class Timed(NamedTuple):
    """One answered request, seconds."""

    latency: float
    first: float  # until the first piece of text
    tokens: int
    pieces: int  # of text, in which the tokens came


class Failure(NamedTuple):
    """One that was not, by kind, and what its server did in the words of the first error."""

    kind: str
    said: str


@dataclass
class Round:
    """What came of a level's requests, sent once."""

    done: list[Timed] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    given_up: bool = False  # the server stopped answering in its midst

    @property
    def gone(self) -> bool:
        return self.given_up or not self.done

    def take(self, request: Request, one: Timed) -> bool:
        """Count an answer, as a failure where it has another length than was asked for."""
        if request.extra.get("ignore_eos") and one.tokens != request.max_tokens:
            said = f"answers {one.tokens} tokens where {request.max_tokens} were asked for; --any-length allows it"
            self.failures.append(Failure("of another length", said))
            return False
        self.done.append(one)
        return True


Told = Callable[[int], object]  # hears of so many requests more that are over
Loop = Callable[[Server, Sequence[Request], int, Told], Round]


class Own:
    """The built-in loop; its connections are kept from one round to the next."""

    def __enter__(self) -> Self:
        self.runner, self.client = asyncio.Runner(), asynchronous()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()

    def __call__(self, server: Server, requests: Sequence[Request], at_once: int, told: Told) -> Round:
        return self.runner.run(self._round(server, requests, at_once, told))

    async def _round(self, server: Server, requests: Sequence[Request], at_once: int, told: Told) -> Round:
        found, waiting, in_a_row = Round(), iter(requests), 0

        async def ask() -> None:
            nonlocal in_a_row
            for request in waiting:
                try:
                    answered = found.take(request, await timed(self.client, server, request))
                except ConnectionError as error:
                    found.failures.append(Failure(kind_of(error), str(error).removeprefix(f"{server} ")))
                    answered = False
                told(1)
                in_a_row = 0 if answered else in_a_row + 1
                if in_a_row >= max(at_once, IN_A_ROW):
                    found.given_up = True
                if found.given_up:
                    return

        start = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(at_once)))
        found.seconds = time.perf_counter() - start
        return found


def rounds_of(
    servers: Sequence[Server], load: Load, loop: Loop, own: Own, told: Told
) -> Iterator[tuple[int, int, Round]]:
    """(place of the server, requests under way, what came of them), round by round.

    Before the first all servers are warmed up by the built-in loop. Ends early after a round that says that its server
    is gone. Raises ConnectionError where not even the first request of a server is answered.
    """
    numbers = itertools.count()
    for server in servers:
        first = own(server, [request(load, next(numbers))], 1, lambda _: None)
        if first.failures:
            raise ConnectionError(f"{server} {first.failures[0].said}")
    for server in servers:
        own(
            server,
            [request(load, next(numbers)) for _ in range(max(load.concurrency))],
            max(load.concurrency),
            lambda _: None,
        )
    for number in range(load.rounds):
        for at_once in load.concurrency:
            for place in sorted(range(len(servers)), reverse=number % 2 == 1):
                requests = [request(load, next(numbers)) for _ in range(load.requests(at_once))]
                found = loop(servers[place], requests, at_once, told)
                yield place, at_once, found
                if found.gone:
                    return


async def timed(client: httpx.AsyncClient, server: Server, request: Request) -> Timed:
    """One request. Raises ConnectionError for an answer that failed or took longer than the server's `timeout`."""
    start, first, pieces, counted = time.perf_counter(), None, 0, None
    try:
        async with asyncio.timeout(server.timeout):
            async for piece in stream(client, server, request):
                if piece.text:
                    first, pieces = first or time.perf_counter() - start, pieces + 1
                counted = piece.tokens if piece.tokens is not None else counted
    except TimeoutError as error:
        raise ConnectionError(f"{server} gives no answer within {server.timeout:g} s") from error
    latency = time.perf_counter() - start
    return Timed(latency, latency if first is None else first, pieces if counted is None else counted, pieces)


def kind_of(error: ConnectionError) -> str:
    """What failures are counted by."""
    kinds: dict[type[BaseException], str] = {
        httpx.ConnectError: "without a connection",
        httpx.TimeoutException: "too late",
        TimeoutError: "too late",
        httpx.TransportError: "cut off",
        Stumbled: "refused for now (429 or 5xx)",
        Refused: "refused",
    }
    cause = error.__cause__ or error
    return next((word for kind, word in kinds.items() if isinstance(cause, kind)), "broken off")


def request(load: Load, number: int) -> Request:
    """The load's request of this number: a soft picture of its own, and the same question."""
    rng = random.Random(f"{load.seed} {number}")
    small = Image.frombytes("RGB", (8, 8), rng.randbytes(8 * 8 * 3))
    file = io.BytesIO()
    small.resize(load.size, Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
    extra = {"ignore_eos": True} if load.exactly else {}
    return Request(QUESTION, (file.getvalue(),), max_tokens=load.tokens, seed=number, extra=extra)
