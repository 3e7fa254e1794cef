"""What is asked of an OpenAI-compatible server and what it answers: requests and replies, to JSON and back.

Pictures travel as PNG data URLs, which lose nothing; `families.Family.seen` is the picture as training resizes it.
Left out on purpose: conversations of several turns, tools, sound and video.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from vlmr1.sample import PLACE

Sent = Image.Image | bytes  # a picture, or the bytes of its PNG file


@dataclass(frozen=True)
class Request:
    """One question. None, False or empty leaves a field out of what is sent, so that the server's own default holds."""

    text: str  # `<image>` where pictures stand inside it, else they stand before it
    pictures: tuple[Sent, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = 0.0  # 0 is greedy
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    n: int = 1  # completions
    logprobs: bool = False
    token_ids: bool = False  # vLLM's `return_token_ids`; servers that know no such field may refuse it
    stop_token_ids: tuple[int, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)  # fields of the body besides these


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    token_ids: tuple[int, ...] | None  # with its end token; None where the server gives none
    logprobs: tuple[float, ...] | None  # of its tokens, in nats
    finish_reason: str | None  # "stop", "length", …


@dataclass(frozen=True)
class Reply:
    """A server's answer to one request."""

    completions: tuple[Completion, ...]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None  # of all completions together
    prompt_token_ids: tuple[int, ...] | None = None
    model: str | None = None  # as the server calls what answered
    weight_version: str | None = None  # of the weights that answered, where the server says


def png(picture: Sent) -> bytes:
    """A picture as a PNG file, quickly rather than small."""
    if isinstance(picture, bytes):
        return picture
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG", compress_level=1)
    return file.getvalue()


def body_of(request: Request) -> dict[str, Any]:
    """The JSON body of a chat completion, but for the model's name. Raises ValueError for places without pictures."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": _content(request)}]}
    for name in ("temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty", "seed"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.n > 1:
        body["n"] = request.n
    if request.logprobs:
        body["logprobs"] = True
    if request.token_ids:
        body["return_token_ids"] = True
    if request.stop_token_ids:
        body["stop_token_ids"] = list(request.stop_token_ids)
    return body | dict(request.extra)


def _content(request: Request) -> str | list[dict[str, Any]]:
    """The message's parts, in the order in which `Family.encode` has them; plain text without pictures."""
    pictures = [_part(picture) for picture in request.pictures]
    first, *rest = request.text.split(PLACE)
    if rest and len(rest) != len(pictures):
        raise ValueError(f"the text says {PLACE} {len(rest)} times and has {len(pictures)} pictures")
    if not pictures:
        return request.text
    parts = [] if rest else pictures
    parts = parts + ([_said(first)] if first or not rest else [])
    for picture, text in zip(pictures, rest, strict=False):
        parts += [picture, _said(text)] if text else [picture]
    return parts


def _said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _part(picture: Sent) -> dict[str, Any]:
    data = base64.b64encode(png(picture)).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def reply_of(text: str) -> Reply:
    """A chat completion's JSON, read. Raises ValueError where it is none."""
    try:
        answer = json.loads(text)
        usage = answer.get("usage") or {}
        choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
        if not choices:
            raise ValueError("it has no choices")
        return Reply(
            tuple(_completion(choice) for choice in choices),
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
            _numbers(answer.get("prompt_token_ids")),
            answer.get("model"),
            answer.get("weight_version"),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"its answer is not an OpenAI chat completion ({error!r})") from error


def _completion(choice: dict[str, Any]) -> Completion:
    said = choice.get("logprobs") or {}
    logprobs = None if said.get("content") is None else tuple(float(one["logprob"]) for one in said["content"])
    ids = _numbers(choice.get("token_ids"))
    return Completion(_written(choice["message"]["content"]), ids, logprobs, choice.get("finish_reason"))


def _written(content: Any) -> str:
    """A message's text, which some servers give in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _numbers(ids: Any) -> tuple[int, ...] | None:
    return None if ids is None else tuple(int(one) for one in ids)
