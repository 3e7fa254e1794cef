"""How servers are reached: whom connections trust, which go past the environment's proxy, and what an answer means.

Everything that speaks to a server is made here, so that all of it takes the same way: this machine's own servers are
never asked through a proxy. Left out on purpose: what is asked.
"""

from __future__ import annotations

import ssl
import time
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx

REACHED = 10.0  # seconds in which a server that is up takes a connection
LONGEST = 60.0  # seconds that a server may ask to be left alone, before it counts as away
OWN = ("127.0.0.1", "localhost", "[::1]")  # this machine's, which no proxy knows
OF_THE_QUESTION = (400, 413, 422)  # refusals that any other server would repeat
LASTING = (401, 403, *OF_THE_QUESTION)  # and those that no patience mends


@cache
def trust() -> ssl.SSLContext:
    """Whom connections trust, read once: it takes longer than many an answer."""
    return httpx.create_ssl_context()


def asynchronous() -> httpx.AsyncClient:
    """A client for many requests at once; each sets its own time limit, but a connection must stand soon."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    mounts = {f"all://{host}": None for host in OWN}
    timeout = httpx.Timeout(None, connect=REACHED)
    return httpx.AsyncClient(timeout=timeout, limits=limits, verify=trust(), mounts=mounts)


def once(method: str, address: str, timeout: float, own: bool = False, **more: Any) -> httpx.Response:
    """One request by itself, past any proxy where the server is this machine's `own`. Raises httpx.RequestError."""
    mounts = {f"all://{host}": None for host in OWN}
    limits = httpx.Timeout(timeout, connect=min(REACHED, timeout))
    with httpx.Client(timeout=limits, verify=trust(), mounts=mounts, trust_env=not own) as client:
        return client.request(method, address, **more)


class Stumbled(Exception):
    """A fault that may pass; `wait` are the seconds that the server asks for. `late`: it said nothing in time."""

    def __init__(self, problem: str, wait: float = 0.0, late: bool = False) -> None:
        super().__init__(problem)
        self.wait, self.late = wait, late


class Refused(ConnectionError):
    """A server that answers and will not; `place` is the request's, where one question was refused."""

    def __init__(self, problem: str, status: int) -> None:
        super().__init__(problem)
        self.status = status
        self.place: int | None = None

    @property
    def of_the_question(self) -> bool:
        """Whether another server would refuse the same."""
        return self.status in OF_THE_QUESTION

    @property
    def lasting(self) -> bool:
        """Whether a person must mend something."""
        return self.status in LASTING


def check(server: object, answer: httpx.Response) -> None:
    """Raises Stumbled for an answer of 429 or 5xx, Refused for any other that is none of success."""
    if answer.is_success:
        return
    problem = f"it answers {answer.status_code} {answer.reason_phrase}: {' '.join(answer.text.split())[:300]}"
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Stumbled(problem, waiting(answer.headers.get("Retry-After", "")))
    raise Refused(f"{server} refuses: {problem}", answer.status_code)


def waiting(asked: str) -> float:
    """Seconds of a Retry-After, a number or a date, within bounds; 0 for what is neither."""
    asked = asked.strip()
    if asked.isdecimal():
        return min(float(asked), LONGEST)
    try:
        return min(max(parsedate_to_datetime(asked).timestamp() - time.time(), 0.0), LONGEST)
    except ValueError:
        return 0.0
