"""The one client of OpenAI-compatible servers: vLLM, vllm-ascend, xLLM, SGLang, hosted endpoints.

Many requests at once, at most so many on each server; one that stumbles (a time-out, a cut connection, an answer of 429
or 5xx) is sent again after a pause that doubles; a server that goes on stumbling is left out for the rest of the call,
and what it had goes to the others. A key comes from the environment (VLMR1_SERVER_KEY), never from a file.

    server = Server("http://localhost:8000/v1", "grpo")
    (reply,) = chat([server], [Request("the red square", (picture,), max_tokens=64)])

Left out on purpose: a server that comes back is not asked again within the same call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import httpx

from vlmr1.serving.messages import Completion, Reply, Request, body_of, reply_of

__all__ = ["Completion", "Reply", "Request", "Server", "chat", "chat_async", "listing", "models_of", "server_at"]
KEY = "VLMR1_SERVER_KEY"
DIGITS = 12  # of a digest in a served name
LOG = logging.getLogger(__name__)
Told = Callable[[int, Reply], object]


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
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"server {self.url!r}: an address is needed, e.g. http://localhost:8000/v1")

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


@cache
def trust() -> ssl.SSLContext:
    """Whom connections trust, read once: it takes longer than many an answer."""
    return httpx.create_ssl_context()


def server_at(url: str, model: str, **more: Any) -> Server:
    """The server at an address, with the environment's key."""
    return Server(url, model, os.environ.get(KEY, ""), **more)


def listing(server: Server) -> dict[str, str]:
    """The models that a server says it serves: by name, which program it is. Raises ConnectionError where it does not.

    `vlmr1 serve` adds NAME@DIGEST, which tells one checkpoint of a name from another.
    """
    try:
        timeout = min(server.timeout, 30)
        answer = httpx.get(server.address("models"), headers=server.headers, timeout=timeout, verify=trust())
        answer.raise_for_status()
        return {str(one["id"]): str(one.get("owned_by", "")) for one in answer.json()["data"]}
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConnectionError(
            f"{server.url} does not say which models it serves: {error or type(error).__name__}; start it, or mend its"
            " address"
        ) from error


def models_of(server: Server) -> list[str]:
    """The names of `listing`."""
    return list(listing(server))


def chat(servers: Sequence[Server], requests: Iterable[Request], told: Told | None = None) -> list[Reply]:
    """The replies, in the order of the requests; `told` hears of each with its place as it comes, one at a time.

    Requests are taken from `requests` as servers become free, so that a generator need not hold all pictures at once.
    Raises ConnectionError where a server refuses (an answer of 4xx but 429), or when none is left to ask.
    """
    return asyncio.run(chat_async(servers, requests, told))


async def chat_async(servers: Sequence[Server], requests: Iterable[Request], told: Told | None = None) -> list[Reply]:
    """`chat`, where an event loop already runs. `told` and `requests` run in threads of their own."""
    if not servers:
        raise ValueError("no server is named")
    asking = _Asking(servers, requests, told)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits, verify=trust()) as client:
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
        raise ConnectionError("; ".join(f"{server} gives no answer: {why}" for server, why in asking.down.items()))
    return [asking.replies[place] for place in range(len(asking.replies))]


class _Asking:
    """What is still to be asked, what is under way, what was answered, and which servers are down."""

    def __init__(self, servers: Sequence[Server], requests: Iterable[Request], told: Told | None) -> None:
        self.requests, self.told = enumerate(requests), told
        self.exhausted, self.under_way = False, 0
        self.again: deque[tuple[int, dict[str, Any]]] = deque()  # left by servers that went down
        self.replies: dict[int, Reply] = {}
        self.down: dict[Server, str] = {}
        self.refused: ConnectionError | None = None
        self.gone = {server: asyncio.Event() for server in servers}
        self.taking, self.telling, self.change = asyncio.Lock(), asyncio.Lock(), asyncio.Condition()

    async def work(self, client: httpx.AsyncClient, server: Server) -> None:
        """Ask one server one request after another, until all is answered or the server is down."""
        while server not in self.down and (item := await self._take()) is not None:
            place, body = item
            try:
                reply = await self._patiently(client, server, body)
            except ConnectionError as error:  # a refusal: what is under way may end, nothing more is sent
                self.refused, reply = error, None
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
            async with self.taking:
                if self.again:
                    self.under_way += 1
                    return self.again.popleft()
                if not self.exhausted:
                    taken = await asyncio.to_thread(self._prepare)
                    if taken is not None:
                        self.under_way += 1
                        return taken
                    self.exhausted = True
            async with self.change:
                if self.under_way == 0 and not self.again:
                    self.change.notify_all()
                    return None
                if not self.again:
                    await self.change.wait()  # what is under way elsewhere may yet come back
        return None

    def _prepare(self) -> tuple[int, dict[str, Any]] | None:
        place, request = next(self.requests, (0, None))
        return None if request is None else (place, body_of(request))

    async def _patiently(self, client: httpx.AsyncClient, server: Server, body: dict[str, Any]) -> Reply | None:
        """One request's reply; None where the server is, or by this request becomes, one that is down."""
        problem, wait = "", 0.0
        for number in range(server.tries):
            if server in self.down or self.refused is not None:
                return None
            if number:
                try:  # a pause, unless the server is given up in the meantime
                    await asyncio.wait_for(self.gone[server].wait(), max(wait, server.pause * 2 ** (number - 1)))
                    return None
                except TimeoutError:
                    pass  # the pause is over
            try:
                return await post(client, server, body)
            except Stumbled as error:
                problem, wait = str(error), error.wait
        if server not in self.down:
            self.down[server] = problem
            self.gone[server].set()
            if len(self.down) < len(self.gone):
                LOG.warning("%s is left out: %s", server, problem)
        return None


class Stumbled(Exception):
    """A fault that may pass; `wait` are the seconds that the server asks for."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


async def post(client: httpx.AsyncClient, server: Server, body: dict[str, Any]) -> Reply:
    """One request, sent once. Raises Stumbled for a fault that may pass, ConnectionError for a refusal."""
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
        raise Stumbled(f"no answer within {server.timeout:g} s") from error
    except httpx.TransportError as error:
        raise Stumbled(str(error) or type(error).__name__) from error
    check(server, answer)
    try:
        reply = reply_of(answer.text)
        return replace(reply, weight_version=version) if server.versioned else reply
    except ValueError as error:
        raise ConnectionError(f"{server}: {error}; is it an OpenAI-compatible server's address?") from error


async def _version(client: httpx.AsyncClient, server: Server) -> str:
    """The version of a vLLM server's weights, "default" where it was never told one."""
    answer = await client.get(f"{server.root}/weight_info", headers=server.headers)
    check(server, answer)
    try:
        return str(answer.json()["weight_version"])
    except (ValueError, LookupError, TypeError) as error:
        raise ConnectionError(f"{server}: its answer about its weights cannot be read ({error!r})") from error


def check(server: Server, answer: httpx.Response) -> None:
    """Raises Stumbled for an answer of 429 or 5xx, ConnectionError for any other that is none of success."""
    if answer.is_success:
        return
    problem = f"it answers {answer.status_code} {answer.reason_phrase}: {' '.join(answer.text.split())[:300]}"
    if answer.status_code == 429 or answer.status_code >= 500:
        asked = answer.headers.get("Retry-After", "")
        raise Stumbled(problem, float(asked) if asked.isdigit() else 0.0)
    raise ConnectionError(f"{server} refuses: {problem}")
