"""bench-serve: how fast a server answers questions about pictures, at several numbers of requests under way.

Each request has a picture of its own, so that no server answers from what it remembers, and asks for the same number of
tokens. A level ends when all its requests have; one unmeasured request goes first. Failures, and answers of another
length, count against the success rate and nothing else.
Left out on purpose: arrival processes other than so many clients that each wait for their answer.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from vlmr1.serving.client import Server
from vlmr1.serving.messages import Request
from vlmr1.serving.stream import stream

Level = dict[str, float | int]
QUESTION = "Describe everything in this picture, from left to right."
FIGURES = {  # of a level, with what a person reads; ms, s as the name says
    "rps": "requests/s",
    "tokens_per_second": "tokens/s",
    "latency_mean": "latency s",
    "latency_p99": "latency s, P99",
    "ttft_mean": "first token s",
    "ttft_p99": "first token s, P99",
    "tpot_mean": "s/token",
    "success": "success",
}
# All that VLM-R1 publishes of Qwen2.5-VL on an Ascend 910B, by concurrency, of pictures and answers of these sizes.
THEIR_SIZE, THEIR_TOKENS = (640, 640), 512
THEIRS: dict[str, dict[int, Level]] = {
    "xllm": {
        1: {"tokens_per_second": 59.1, "ttft_mean": 0.775},
        8: {"tokens_per_second": 402.5, "ttft_mean": 0.677},
        32: {"tokens_per_second": 1138.5, "ttft_mean": 2.739},
    },
    "vllm-ascend": {
        1: {"tokens_per_second": 17.9, "ttft_mean": 1.333},
        8: {"tokens_per_second": 140.4, "ttft_mean": 0.479},
        32: {"tokens_per_second": 501.5, "ttft_mean": 1.462},
    },
}


@dataclass(frozen=True)
class Load:
    """What a server is asked for."""

    concurrency: tuple[int, ...]
    rounds: int = 4  # requests of a level for each one under way
    size: tuple[int, int] = THEIR_SIZE  # of the pictures, (width, height)
    tokens: int = THEIR_TOKENS  # of an answer
    exactly: bool = True  # asks for `ignore_eos`, which vLLM, vllm-ascend and SGLang know
    seed: int = 0


@dataclass(frozen=True)
class Timed:
    """One answered request, seconds."""

    latency: float
    first: float  # until the first piece of text
    tokens: int


def bench(server: Server, load: Load) -> dict[int, Level]:
    """Figures by concurrency. Raises ConnectionError where not even the first request is answered."""
    return asyncio.run(_bench(server, load))


async def _bench(server: Server, load: Load) -> dict[int, Level]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    levels, number = {}, 1
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        await _timed(client, server, request(load, 0))
        for concurrency in load.concurrency:
            requests = [request(load, number + i) for i in range(load.rounds * concurrency)]
            number += len(requests)
            levels[concurrency] = await _level(client, server, requests, concurrency)
    return levels


async def _level(client: httpx.AsyncClient, server: Server, requests: list[Request], concurrency: int) -> Level:
    waiting, done, failed = iter(requests), [], 0

    async def one() -> None:
        nonlocal failed
        for request in waiting:
            try:
                done.append(await _timed(client, server, request))
            except ConnectionError:
                failed += 1  # told by the success rate

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(concurrency)))
    return figures(done, failed, time.perf_counter() - start)


async def _timed(client: httpx.AsyncClient, server: Server, request: Request) -> Timed:
    """Raises ConnectionError for an answer that failed, took longer than `timeout`, or is of another length."""
    start, first, pieces, counted = time.perf_counter(), None, 0, None
    try:
        async with asyncio.timeout(server.timeout):
            async for piece in stream(client, server, request):
                if piece.text:
                    first, pieces = first or time.perf_counter() - start, pieces + 1
                counted = piece.tokens if piece.tokens is not None else counted
    except TimeoutError:
        raise ConnectionError(f"{server} gives no answer within {server.timeout:g} s") from None
    latency = time.perf_counter() - start
    if request.extra.get("ignore_eos") and counted not in (None, request.max_tokens):
        raise ConnectionError(
            f"{server} answers {counted} tokens where {request.max_tokens} were asked for; --any-length allows it"
        )
    return Timed(latency, latency if first is None else first, pieces if counted is None else counted)


def request(load: Load, number: int) -> Request:
    """The load's request of this number: a soft picture of its own, and the same question."""
    rng = random.Random(f"{load.seed} {number}")
    small = Image.frombytes("RGB", (8, 8), rng.randbytes(8 * 8 * 3))
    file = io.BytesIO()
    small.resize(load.size, Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
    extra = {"ignore_eos": True} if load.exactly else {}
    return Request(QUESTION, (file.getvalue(),), max_tokens=load.tokens, seed=number, extra=extra)


def figures(done: Sequence[Timed], failed: int, seconds: float) -> Level:
    """A level's figures; without a single answer only that it has none."""
    level: Level = {"requests": len(done) + failed, "success": len(done) / (len(done) + failed)}
    if not done:
        return level
    latency, first = np.array([one.latency for one in done]), np.array([one.first for one in done])
    steps = np.array([(one.latency - one.first) / (one.tokens - 1) for one in done if one.tokens > 1])
    level |= {"seconds": seconds, "rps": len(done) / seconds}
    level["tokens_per_second"] = sum(one.tokens for one in done) / seconds
    for name, values in (("latency", latency), ("ttft", first), ("tpot", steps)):
        if len(values):
            level |= {f"{name}_mean": float(values.mean()), f"{name}_p99": float(np.percentile(values, 99))}
    return level


def table(found: dict[str, dict[int, Level]], load: Load) -> str:
    """A column a server, of two their ratio, then the original's where it had the same load; rows by concurrency."""
    lines = [f"{letter}: {name}" for letter, name in zip("AB", found, strict=False)]
    columns = dict(zip("AB", found.values(), strict=False))
    if len(found) == 2:
        one, two = found.values()
        columns["B / A"] = {c: _ratio(one[c], two[c]) for c in one if c in two}
    if (load.size, load.tokens, load.exactly) == (THEIR_SIZE, THEIR_TOKENS, True):
        columns |= {f"{engine}*": levels for engine, levels in THEIRS.items()}
        lines.append("*: theirs, on an Ascend 910B; no more than this is published")
    else:
        width, height = THEIR_SIZE
        asked = f"--picture {width}x{height} --tokens {THEIR_TOKENS}"
        lines.append(f"theirs, on an Ascend 910B, are of another load: {asked} sets them beside")
    lines.append(f"{'at once':>7}  {'':<18}" + "".join(f"{name:>14}" for name in columns))
    for concurrency in load.concurrency:
        for place, (key, title) in enumerate(FIGURES.items()):
            cells = (levels.get(concurrency, {}).get(key) for levels in columns.values())
            shown = "".join(f"{'-':>14}" if value is None else f"{value:>14.4g}" for value in cells)
            lines.append(f"{'' if place else concurrency:>7}  {title:<18}{shown}")
    return "\n".join(lines)


def _ratio(one: Level, two: Level) -> Level:
    return {key: two[key] / one[key] for key in FIGURES if one.get(key) and key in two}


def plot(found: dict[str, dict[int, Level]], path: Path) -> None:
    """Tokens a second, time to first token and latency against the number of requests under way."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    shown = {"tokens_per_second": "tokens a second", "ttft_mean": "first token, s", "latency_mean": "latency, s"}
    for axes, (key, title) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        for name, levels in found.items():
            points = [(c, level[key]) for c, level in levels.items() if key in level]
            axes.plot(*zip(*points, strict=True), marker="o", label=name) if points else None
        axes.set(title=title, xlabel="requests under way", ylim=(0, None))
        axes.set_xscale("log", base=2)
    figure.axes[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def as_json(found: dict[str, dict[int, Level]], load: Load) -> dict[str, Any]:
    """All of it, for a file."""
    asked = {"size": list(load.size), "tokens": load.tokens, "rounds": load.rounds, "exactly": load.exactly}
    return {"load": asked, "servers": {name: {str(c): level for c, level in of.items()} for name, of in found.items()}}
