"""One answer, piece by piece, as a server writes it; one that is broken off is no answer.

`timeout` of the server bounds each silence, not the whole: whoever wants a bound of the whole sets it around.
Left out on purpose: trying again, and several completions.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from vlmr1.serving.client import Server, Stumbled, check
from vlmr1.serving.connections import REACHED
from vlmr1.serving.messages import Request, body_of

BROKEN = ("abort", "error")  # reasons to finish that leave no answer


@dataclass(frozen=True)
class Piece:
    """A piece of text; the last has none and says how many tokens the answer had, where the server counts."""

    text: str
    tokens: int | None = None
    finish: str | None = None  # why the answer ends, in the piece that ends it


async def stream(client: httpx.AsyncClient, server: Server, request: Request) -> AsyncIterator[Piece]:
    """The pieces of one answer. Raises ConnectionError where the server cannot be asked, refuses or breaks off."""
    body = {"model": server.model, "stream": True, "stream_options": {"include_usage": True}} | body_of(request)
    address, ended = server.address("chat/completions"), False
    patience = httpx.Timeout(server.timeout, connect=min(REACHED, server.timeout))
    try:
        async with client.stream("POST", address, json=body, headers=server.headers, timeout=patience) as answer:
            if not answer.is_success:
                await answer.aread()
            check(server, answer)
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                said = line.removeprefix("data:").strip()
                if said == "[DONE]":
                    ended = True
                    break
                piece = _piece(json.loads(said))
                ended = ended or piece.finish is not None
                yield piece
            if not ended:
                raise ValueError("it broke off before the end of its answer")
    except httpx.ConnectTimeout as error:
        raise ConnectionError(f"{server} takes no connection within {patience.connect:g} s") from error
    except httpx.TimeoutException as error:
        raise ConnectionError(f"{server} gives no answer within {server.timeout:g} s") from error
    except (httpx.RequestError, Stumbled, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConnectionError(f"{server} gives no answer: {str(error) or type(error).__name__}") from error


def _piece(chunk: dict[str, Any]) -> Piece:
    """Raises ValueError for what says that the answer failed."""
    if fault := chunk.get("error"):
        raise ValueError(str(fault.get("message", fault) if isinstance(fault, dict) else fault))
    choices = chunk.get("choices") or []
    text = "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)
    finish = next((choice["finish_reason"] for choice in choices if choice.get("finish_reason")), None)
    if finish in BROKEN:
        raise ValueError(f"it ended its answer with {finish!r}")
    return Piece(text, (chunk.get("usage") or {}).get("completion_tokens"), finish)
