"""What a vLLM server can be told besides questions: adapters, other weights in place, and what version they are.

Adapters come and go by routes that VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 opens, the rest by those that
VLLM_SERVER_DEV_MODE=1 does; `vlmr1 serve --rollouts` sets both as needed. Written against vLLM 0.32.
Left out on purpose: which weights, and when (`vlmr1.grpo.weights_out`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from vlmr1.serving.client import Refused, Server
from vlmr1.serving.connections import Stumbled, check, once

T = TypeVar("T")
SOON = 60.0  # seconds in which a server says what it has, though it may be busy reading pictures


class Away(ConnectionError):
    """The server cannot be reached, broke off, fails, or knows no such route: in time that may pass."""


class Failed(Away):
    """It was reached, and says that it cannot."""


class NotTaken(Away):
    """It could not read what lies in a folder: most often because it does not see it."""


def serve_line(checkpoint: Path, url: str, name: str) -> str:
    """The command that serves a checkpoint by a name where another server was."""
    named = "" if name == checkpoint.resolve().name else f" --name {name}"
    return f"vlmr1 serve {checkpoint}{named} --port {urlsplit(url).port or 8000}"


def tell(server: Server, path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
    """POST to a path beside /v1; the answer's JSON, or None.

    Raises Away where the server is not there or fails, Refused with its words where it refuses.
    """
    return _ask(server, "POST", path, server.timeout, json=body, params=query)


def version_of(server: Server) -> str:
    """The version its weights were last called, "default" where never. Raises as `tell`."""
    return _get(server, "weight_info", lambda said: str(said["weight_version"]))


def was_told_others(server: Server) -> bool:
    """Whether it may have other weights than it was started with. Raises as `tell`."""
    try:
        return version_of(server) != "default"
    except ConnectionError:  # a server that knows no versions cannot be told of any
        return False


def is_paused(server: Server) -> bool:
    """Whether somebody told it to answer nothing, as a trainer does that was killed while it brought weights."""
    try:
        return _get(server, "is_paused", lambda said: bool(said.get("is_paused")))
    except ConnectionError:  # nobody can pause a server that does not know the route
        return False


def served_by(server: Server) -> set[str]:
    """The names of models and adapters it has. Raises as `tell`."""
    return _get(server, "v1/models", lambda said: {str(one["id"]) for one in said["data"]})


def workers_of(server: Server) -> int:
    """Processes that hold its weights. Raises as `tell`."""
    return _get(server, "get_world_size", lambda said: int(said["world_size"]))


def load_adapter(server: Server, name: str, folder: str) -> None:
    """Have it load an adapter, from a folder as it sees it, unless it has it. Raises as `tell`."""
    if name not in served_by(server):
        _read(server, "v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})


def unload_adapters(server: Server, beginning: str, but: str = "") -> None:
    """Have it forget the adapters whose names begin so, but one. Raises as `tell`."""
    for name in served_by(server):
        if name.startswith(beginning) and name != but:
            tell(server, "v1/unload_lora_adapter", {"lora_name": name})


def reload(server: Server, folder: str, version: str) -> None:
    """Have it take its weights from a checkpoint folder, in place, and call them by a version. Raises as `tell`.

    What is under way is broken off, and what it remembers of prompts under the old weights forgotten; questions that
    come meanwhile wait. A failed reload leaves the version "broken", never an old one; it is called so before anything
    is broken off, so that no half of an answer bears the old one's name.
    """
    tell(server, "update_weight_version", {"new_version": "broken"})
    try:
        tell(server, "pause", mode="abort")
        _read(server, "collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        tell(server, "reset_prefix_cache")
        tell(server, "update_weight_version", {"new_version": version})
    finally:
        tell(server, "resume")


def _read(server: Server, path: str, body: dict[str, Any]) -> None:
    """Tell it to read a folder. Raises as `tell`, NotTaken where it says that it cannot."""
    try:
        tell(server, path, body)
    except Failed as error:
        raise NotTaken(str(error)) from error


def _get(server: Server, path: str, read: Callable[[Any], T]) -> T:
    """What `read` makes of the answer to a GET. Raises Away for one that it cannot read."""
    said = _ask(server, "GET", path, min(SOON, server.timeout))
    try:
        return read(said)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Away(f"{server.url}: its answer at /{path} cannot be read: {str(said)[:100]}") from error


def _ask(server: Server, method: str, path: str, timeout: float, **more: Any) -> Any:
    try:
        answer = once(method, f"{server.root}/{path}", timeout, headers=server.headers, **more)
        if answer.status_code == 404 and "v1/" not in path:
            raise Away(f"{server.url}: knows no /{path}; start it by vlmr1 serve … --rollouts, as docs/serving.md says")
        check(server, answer)
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None
    except httpx.RequestError as error:
        raise Away(str(error) or type(error).__name__) from error
    except Stumbled as error:
        raise Failed(f"{server.url} fails at /{path}: {error}") from error
    except json.JSONDecodeError as error:
        raise Away(f"{server.url}: its answer at /{path} is no JSON") from error
    except Refused as error:
        if error.status == 404:
            raise Failed(str(error)) from error
        raise
