"""The one client of OpenAI-compatible servers: vLLM, vllm-ascend, xLLM, SGLang, hosted endpoints.

Many requests at once, at most so many on each server; one that stumbles (a time-out, a cut connection, an answer of 429
or 5xx) is sent again after a pause that doubles; a server that goes on stumbling, that refuses whoever asks (401, 403,
404), or that says nothing in time and is not even healthy, is left out for the rest of the call, and what it had goes
to the others. A question that is refused for what it is (400, 413, 422) ends the call. A key comes from the
environment (VLMR1_SERVER_KEY), never from a file.

    server = Server("http://localhost:8000/v1", "grpo")
    (reply,) = chat([server], [Request("the red square", (picture,), max_tokens=64)])

Left out on purpose: a server that comes back is not asked again within the same call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from vlmr1.serving.connections import REACHED, Refused, Stumbled, asynchronous, check, once
from vlmr1.serving.messages import Completion, Reply, Request, body_of, reply_of
from vlmr1.settings.base import check_address, without_path

__all__ = [
    "Completion", "Refused", "Reply", "Request", "Server", "Stumbled", "chat", "chat_async", "check", "listing",
    "models_of", "server_at",
]  # fmt: skip
KEY = "VLMR1_SERVER_KEY"
DIGITS = 12  # of a digest in a served name
LOG = logging.getLogger(__name__)
Told = Callable[[int, Reply], object]
Fell = Callable[["Server", ConnectionError], object]


@dataclass(frozen=True)
class Server:
    """A server's address, the model asked for there, and how patiently."""

    url: str  # e.g. http://localhost:8000/v1
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 300.0  # seconds a request
    tries: int = 4
    pause: float = 1.0  # seconds before the second try; doubled before each further one
    at_once: int = 16  # requests under way together
    versioned: bool = False  # vLLM's weight version is asked before and after each answer, which it does not say itself

    def __post_init__(self) -> None:
        try:
            check_address(self.url)
        except ValueError as error:
            raise ValueError(f"server {error}") from error

    def __str__(self) -> str:
        return f"{self.model} at {self.url}"

    def address(self, path: str) -> str:
        """The address of a path such as "chat/completions"."""
        return f"{self.url.rstrip('/')}/{path}"

    @property
    def root(self) -> str:
        """The address without /v1, where a server is told what is not of OpenAI's protocol."""
        return self.url.rstrip("/").removesuffix("/v1")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def server_at(url: str, model: str, **more: Any) -> Server:
    """The server at an address, with the environment's key."""
    return Server(url, model, os.environ.get(KEY, ""), **more)


def listing(server: Server) -> dict[str, str]:
    """The models that a server says it serves: by name, which program it is. Raises ConnectionError where it does not.

    `vlmr1 serve` adds NAME@DIGEST, which tells one checkpoint of a name from another.
    """
    try:
        answer = once("GET", server.address("models"), min(server.timeout, 30), headers=server.headers)
        answer.raise_for_status()
        return {str(one["id"]): str(one.get("owned_by", "")) for one in answer.json()["data"]}
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        mend = f"did you mean {server.root}/v1?" if without_path(server.url) else "start it, or mend its address"
        why = error or type(error).__name__
        raise ConnectionError(f"{server.url} does not say which models it serves: {why}; {mend}") from error


def models_of(server: Server) -> list[str]:
    """The names of `listing`."""
    return list(listing(server))


def chat(
    servers: Sequence[Server], requests: Iterable[Request], told: Told | None = None, fell: Fell | None = None
) -> list[Reply]:
    """The replies, in the order of the requests; `told` hears of each with its place as it comes, one at a time.

    `fell` hears of each server that is left out. Requests are taken from `requests` as servers become free, so that a
    generator need not hold all pictures at once. Raises Refused, with its place, for a question that is refused for
    what it is, or where all servers refuse; ConnectionError when none is left to ask.
    """
    return asyncio.run(chat_async(servers, requests, told, fell))


async def chat_async(
    servers: Sequence[Server], requests: Iterable[Request], told: Told | None = None, fell: Fell | None = None
) -> list[Reply]:
    """`chat`, where an event loop already runs. `told` and `requests` run in threads of their own."""
    if not servers:
        raise ValueError("no server is named")
    asking = _Asking(servers, requests, told, fell)
    async with asynchronous() as client:
        turns = range(max(one.at_once for one in servers))  # in turn, so that few requests too go to all servers
        workers = [
            asyncio.create_task(asking.work(client, one)) for turn in turns for one in servers if turn < one.at_once
        ]
        try:
            await asyncio.gather(*workers)  # the first to raise ends the call
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    if asking.refused is not None:
        raise asking.refused
    if asking.again or not asking.exhausted:
        problem = "; ".join(map(str, asking.down.values()))
        refusals = [why for why in asking.down.values() if isinstance(why, Refused)]
        if len(refusals) == len(asking.down):
            raise Refused(problem, refusals[0].status)
        raise ConnectionError(problem)
    return [asking.replies[place] for place in range(len(asking.replies))]


class _Asking:
    """What is still to be asked, what is under way, what was answered, and which servers are down."""

    def __init__(
        self, servers: Sequence[Server], requests: Iterable[Request], told: Told | None, fell: Fell | None
    ) -> None:
        self.requests, self.told, self.fell = enumerate(requests), told, fell
        self.exhausted, self.under_way = False, 0
        self.again: deque[tuple[int, dict[str, Any]]] = deque()  # left by servers that went down
        self.replies: dict[int, Reply] = {}
        self.down: dict[Server, ConnectionError] = {}
        self.refused: Refused | None = None
        self.gone = {server: asyncio.Event() for server in servers}
        self.taking, self.telling, self.change = asyncio.Lock(), asyncio.Lock(), asyncio.Condition()

    async def work(self, client: httpx.AsyncClient, server: Server) -> None:
        """Ask one server one request after another, until all is answered or the server is down."""
        while server not in self.down and (item := await self._take()) is not None:
            place, body = item
            try:
                reply = await self._patiently(client, server, body)
            except Refused as error:
                reply = None
                if error.of_the_question:  # what is under way may end, nothing more is sent
                    self.refused, error.place = error, place
                else:
                    self._leave_out(server, error)
            if reply is None:
                self.again.append(item)
            else:
                self.replies[place] = reply
                if self.told is not None:
                    async with self.telling:
                        await asyncio.to_thread(self.told, place, reply)
            async with self.change:
                self.under_way -= 1
                self.change.notify_all()

    async def _take(self) -> tuple[int, dict[str, Any]] | None:
        """The next request to send, or None when there will be none."""
        while self.refused is None:
            taken = None
            async with self.taking:
                if self.again:
                    self.under_way += 1
                    return self.again.popleft()
                if not self.exhausted:
                    taken = await asyncio.to_thread(next, self.requests, None)
                    self.exhausted = taken is None
                    self.under_way += not self.exhausted
            if taken is not None:  # pictures are written as PNG side by side
                place, request = taken
                return place, await asyncio.to_thread(body_of, request)
            async with self.change:
                if self.under_way == 0 and not self.again:
                    self.change.notify_all()
                    return None
                if not self.again:
                    await self.change.wait()  # what is under way elsewhere may yet come back
        return None

    async def _patiently(self, client: httpx.AsyncClient, server: Server, body: dict[str, Any]) -> Reply | None:
        """One request's reply; None where the server is, or by this request becomes, one that is down."""
        problem, wait = "", 0.0
        for number in range(server.tries):
            if server in self.down or self.refused is not None:
                return None
            if number:
                pause = server.pause * 2 ** (number - 1) * random.uniform(1.0, 1.25)  # not all of them at one time
                try:  # unless the server is given up in the meantime
                    await asyncio.wait_for(self.gone[server].wait(), max(wait, pause))
                    return None
                except TimeoutError:
                    pass  # the pause is over
            try:
                return await post(client, server, body)
            except Stumbled as error:
                problem, wait = str(error), error.wait
                if error.late and not await _is_healthy(client, server):
                    problem += ", nor does it say that it is healthy"
                    break
        self._leave_out(server, ConnectionError(f"{server} gives no answer: {problem}"))
        return None

    def _leave_out(self, server: Server, why: ConnectionError) -> None:
        """Ask this server nothing more; said once."""
        if server in self.down:
            return
        self.down[server] = why
        self.gone[server].set()
        if self.fell is not None:
            self.fell(server, why)
        if len(self.down) < len(self.gone):
            LOG.warning("%s is left out: %s", server, why)


async def post(client: httpx.AsyncClient, server: Server, body: dict[str, Any]) -> Reply:
    """One request, sent once. Raises Stumbled for a fault that may pass, Refused for a refusal."""
    version = None
    try:
        async with asyncio.timeout(server.timeout):
            before = await _version(client, server) if server.versioned else None
            answer = await client.post(
                server.address("chat/completions"), json={"model": server.model} | body, headers=server.headers
            )
            if before is not None and before == await _version(client, server):
                version = before  # versions are never used twice: what lies between the two is of these weights
    except TimeoutError as error:
        raise Stumbled(f"no answer within {server.timeout:g} s", late=True) from error
    except httpx.RequestError as error:
        raise Stumbled(str(error) or type(error).__name__) from error
    check(server, answer)
    try:
        reply = reply_of(answer.text)
        return replace(reply, weight_version=version) if server.versioned else reply
    except ValueError as error:
        said = f"{server}: {error}; is it an OpenAI-compatible server's address?"
        raise Refused(said, answer.status_code) from error


async def _is_healthy(client: httpx.AsyncClient, server: Server) -> bool:
    """Whether a server that did not answer in time says anything but that it fails; not every one knows the route."""
    patience = min(REACHED, server.timeout)
    try:
        answer = await client.get(f"{server.root}/health", headers=server.headers, timeout=patience)
    except httpx.RequestError:
        return False
    return answer.status_code < 500 or answer.status_code == 501  # it is there, and has no such thing


async def _version(client: httpx.AsyncClient, server: Server) -> str:
    """The version of a vLLM server's weights, "default" where it was never told one."""
    answer = await client.get(f"{server.root}/weight_info", headers=server.headers)
    check(server, answer)
    try:
        return str(answer.json()["weight_version"])
    except (ValueError, LookupError, TypeError) as error:
        said = f"{server}: its answer about its weights cannot be read ({error!r})"
        raise Refused(said, answer.status_code) from error
