"""What a vLLM server can be told besides questions: adapters, other weights in place, and what version they are.

Adapters come and go by routes that VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 opens, the rest by those that
VLLM_SERVER_DEV_MODE=1 does; `vlmr1 serve --rollouts` sets both as needed. Written against vLLM 0.32.
Left out on purpose: which weights, and when (`vlmr1.grpo.weights_out`).
"""

from __future__ import annotations

from typing import Any

import httpx

from vlmr1.serving.client import Server, Stumbled, check, trust

SOON = 10.0  # seconds in which a server that is up says what it has


class Away(ConnectionError):
    """The server cannot be reached, or broke off."""


def tell(server: Server, path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
    """POST to a path beside /v1; the answer's JSON, or None.

    Raises Away where the server is not there, ConnectionError with its words where it refuses.
    """
    return _ask(server, "POST", path, server.timeout, json=body, params=query)


def version_of(server: Server) -> str:
    """The version its weights were last called, "default" where never. Raises as `tell`."""
    return str(_get(server, "weight_info")["weight_version"])


def was_told_others(server: Server) -> bool:
    """Whether it may have other weights than it was started with. Raises as `tell`."""
    try:
        return version_of(server) != "default"
    except ConnectionError:  # a server that knows no versions cannot be told of any
        return False


def served_by(server: Server) -> set[str]:
    """The names of models and adapters it has. Raises as `tell`."""
    return {str(one["id"]) for one in _get(server, "v1/models")["data"]}


def workers_of(server: Server) -> int:
    """Processes that hold its weights. Raises as `tell`."""
    return int(_get(server, "get_world_size")["world_size"])


def load_adapter(server: Server, name: str, folder: str) -> None:
    """Have it load an adapter, from a folder as it sees it, unless it has it. Raises as `tell`."""
    if name not in served_by(server):
        tell(server, "v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})


def unload_adapters(server: Server, beginning: str, but: str) -> None:
    """Have it forget the adapters whose names begin so, but one. Raises as `tell`."""
    for name in served_by(server):
        if name.startswith(beginning) and name != but:
            tell(server, "v1/unload_lora_adapter", {"lora_name": name})


def reload(server: Server, folder: str, version: str) -> None:
    """Have it take its weights from a checkpoint folder, in place, and call them by a version. Raises as `tell`.

    What is under way is broken off, and what it remembers of prompts under the old weights forgotten; questions that
    come meanwhile wait. A failed reload leaves the version "broken", never an old one.
    """
    tell(server, "pause", mode="abort")
    try:
        tell(server, "update_weight_version", {"new_version": "broken"})
        tell(server, "collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        tell(server, "reset_prefix_cache")
        tell(server, "update_weight_version", {"new_version": version})
    finally:
        tell(server, "resume")


def _get(server: Server, path: str) -> Any:
    return _ask(server, "GET", path, min(SOON, server.timeout))


def _ask(server: Server, method: str, path: str, timeout: float, **more: Any) -> Any:
    try:
        answer = httpx.request(
            method, f"{server.root}/{path}", headers=server.headers, timeout=timeout, verify=trust(), **more
        )
    except httpx.TransportError as error:
        raise Away(str(error) or type(error).__name__) from error
    if answer.status_code == 404 and "v1/" not in path:
        raise ConnectionError(
            f"{server.url}: knows no /{path}; start it by vlmr1 serve … --rollouts, as docs/serving.md says"
        )
    try:
        check(server, answer)
    except Stumbled as error:
        raise ConnectionError(f"{server.url} fails at /{path}: {error}") from error
    return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None
