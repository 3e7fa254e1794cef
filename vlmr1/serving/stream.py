"""One answer, piece by piece, as a server writes it. Left out on purpose: trying again, and several completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from vlmr1.serving.client import Server, Stumbled, check
from vlmr1.serving.messages import Request, body_of


@dataclass(frozen=True)
class Piece:
    """A piece of text; the last has none and says how many tokens the answer had, where the server counts."""

    text: str
    tokens: int | None = None


async def stream(client: httpx.AsyncClient, server: Server, request: Request) -> AsyncIterator[Piece]:
    """The pieces of one answer. Raises ConnectionError where the server cannot be asked, refuses or breaks off."""
    body = {"model": server.model, "stream": True, "stream_options": {"include_usage": True}} | body_of(request)
    address = server.address("chat/completions")
    try:
        async with (
            asyncio.timeout(server.timeout),
            client.stream("POST", address, json=body, headers=server.headers) as answer,
        ):
            if not answer.is_success:
                await answer.aread()
            check(server, answer)
            async for line in answer.aiter_lines():
                if line.startswith("data:") and line.removeprefix("data:").strip() != "[DONE]":
                    yield _piece(json.loads(line.removeprefix("data:")))
    except (TimeoutError, httpx.TransportError, Stumbled, ValueError, LookupError, TypeError) as error:
        raise ConnectionError(f"{server} gives no answer: {error or type(error).__name__}") from error


def _piece(chunk: dict) -> Piece:  # type: ignore[type-arg]
    usage = chunk.get("usage") or {}
    text = "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", []))
    return Piece(text, usage.get("completion_tokens"))
