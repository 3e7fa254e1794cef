"""The verb `vlmr1 bench-serve`: its options, what is checked before the first request, and how a measurement ends.

Left out on purpose: what it measures (`bench`), and what it shows of that (`outcome`).
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmr1.serving.bench import Load, Loop, Own
    from vlmr1.serving.client import Server
    from vlmr1.serving.outcome import Outcome


def add_bench(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command its verb."""
    bench = verbs.add_parser("bench-serve", help="how fast a server answers questions about pictures")
    add = bench.add_argument
    add("--url", action="append", required=True, metavar="URL", help="twice: two servers side by side")
    add("--model", action="append", default=[], metavar="NAME", help="one for each --url (default: the server's first)")
    add(
        "--concurrency",
        default="1,2,4,8,16,32",
        metavar="N,N",
        help="requests under way together (default: %(default)s)",
    )
    add(
        "--rounds",
        default="7",
        metavar="N",
        help="times that every level is measured, servers in turn (default: %(default)s)",
    )
    add(
        "--requests",
        default="4",
        metavar="N",
        help="a level and round, or two for each under way where that is more (default: %(default)s)",
    )
    add("--picture", default="640x640", metavar="WxH", help="size of the pictures (default: %(default)s)")
    add("--tokens", default="512", metavar="N", help="of an answer (default: %(default)s)")
    add("--any-length", action="store_true", help="let answers end early: for servers without ignore_eos")
    add("--timeout", type=float, default=300.0, metavar="S", help="seconds a request may take (default: %(default)g)")
    add("--seed", type=int, metavar="N", help="of the pictures (default: a new one, so that no server has seen them)")
    add(
        "--harness",
        choices=["own", "vllm", "evalscope"],
        default="own",
        help="the loop that asks (default: %(default)s)",
    )
    add("--python", metavar="PATH", help="that has it (default: $VLMR1_VLLM_PYTHON, $VLMR1_EVALSCOPE_PYTHON)")
    add("--json", type=Path, metavar="OUT", help="where the figures go")
    add("--plot", type=Path, metavar="OUT.png", help="where the plot goes")
    bench.set_defaults(run=_bench)


def _bench(chosen: argparse.Namespace) -> None:
    from vlmr1.serving.bench import Own
    from vlmr1.serving.harness import harness
    from vlmr1.serving.outcome import Outcome

    load = _load(chosen)
    if len(chosen.url) > 2 or len(chosen.model) not in (0, len(chosen.url)):
        raise ValueError("--url: one server or two; --model: one for each --url, or none")
    if chosen.harness == "own" and chosen.python:
        raise ValueError("--python belongs to --harness vllm or evalscope")
    _check_outputs(chosen.json, chosen.plot)
    asked = None if chosen.harness == "own" else harness(chosen.harness, chosen.python)
    models = chosen.model or [""] * len(chosen.url)
    found = [_server(url, model, chosen.timeout) for url, model in zip(chosen.url, models, strict=True)]
    servers, programs = [one for one, _ in found], [program for _, program in found]
    with ExitStack() as stack:
        own = stack.enter_context(Own())
        outcome = Outcome(servers, programs, load, "vlmr1's own loop" if asked is None else str(asked))
        try:
            _measure(outcome, asked or own, own)
        except KeyboardInterrupt:
            outcome.stopped = "stopped by hand"
            _show(outcome, chosen.json, chosen.plot)
            raise
    _show(outcome, chosen.json, chosen.plot)
    if outcome.stopped:
        raise ConnectionError(f"{outcome.stopped}; what is above was measured before, and is incomplete")


def _load(chosen: argparse.Namespace) -> Load:
    from vlmr1.serving.bench import Load

    width, cross, height = chosen.picture.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"--picture {chosen.picture}: write its width and height, e.g. 640x640")
    if not chosen.timeout > 0:
        raise ValueError(f"--timeout {chosen.timeout:g}: give the seconds that a request may take, above 0")
    return Load(
        tuple(dict.fromkeys(_positive("--concurrency", one) for one in chosen.concurrency.split(","))),
        _positive("--rounds", chosen.rounds),
        _positive("--requests", chosen.requests),
        (int(width), int(height)),
        _positive("--tokens", chosen.tokens),
        not chosen.any_length,
        secrets.randbelow(2**32) if chosen.seed is None else chosen.seed,
    )


def _positive(option: str, word: str) -> int:
    if not word.strip().isdecimal() or int(word) < 1:
        raise ValueError(f"{option}: {word!r} is no whole number above 0")
    return int(word)


def _check_outputs(figures: Path | None, picture: Path | None) -> None:
    """Raises ValueError for a file that could not be written in the end."""
    from vlmr1.files import check_target

    if picture is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        known = FigureCanvasBase.get_supported_filetypes()
        if picture.suffix[1:].lower() not in known:
            raise ValueError(f"--plot {picture}: no picture ends so; end it with .png, .svg or .pdf")
    for option, path in (("--json", figures), ("--plot", picture)):
        if path is None:
            continue
        check_target(option, path, {"--json": figures} if option == "--plot" else {})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise ValueError(f"{option} {path}: cannot be written there ({error.strerror})") from error


def _server(url: str, model: str, timeout: float) -> tuple[Server, str]:
    """The server, and which program it says it is.

    Raises ConnectionError where it does not answer, ValueError for a model that it does not serve.
    """
    from vlmr1.serving.client import listing, server_at

    served = listing(server_at(url, ""))
    model = model or next(iter(served), "")
    if model not in served:
        raise ValueError(f"--model {model}: {url} does not serve it, but {', '.join(served) or 'nothing'}")
    server = server_at(url, model, timeout=timeout)
    return server, " ".join(filter(None, (served[model], _version(server)))) or "unnamed program"


def _version(server: Server) -> str:
    """Of the program, where it says so at vLLM's address for it."""
    import httpx

    from vlmr1.serving.connections import once

    try:
        answer = once("GET", f"{server.root}/version", 10.0, headers=server.headers)
        return str(answer.raise_for_status().json()["version"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return ""  # not every one has such an address


def _measure(outcome: Outcome, loop: Loop, own: Own) -> None:
    """Fill the outcome. Raises ConnectionError where nothing was measured."""
    from vlmr1.progress import progress
    from vlmr1.serving.bench import rounds_of
    from vlmr1.serving.figures import reasons

    measured = 0
    with progress("bench-serve: requests", outcome.load.total * len(outcome.servers)) as bar:
        try:
            for place, at_once, found in rounds_of(outcome.servers, outcome.load, loop, own, bar.update):
                outcome.levels[place][at_once].append(found)
                measured += len(found.done)
                if found.gone:
                    said = reasons(one for rounds in outcome.levels[place].values() for one in rounds)
                    outcome.stopped = f"{outcome.servers[place]} stopped answering at {at_once} under way: {said}"
        except ConnectionError as error:
            if not measured:
                raise
            outcome.stopped = str(error)


def _show(outcome: Outcome, figures: Path | None, picture: Path | None) -> None:
    from vlmr1.files import rounded, write_json
    from vlmr1.serving.outcome import as_json, plot, table

    if figures is not None:
        write_json(figures, rounded(as_json(outcome)))
    if picture is not None:
        plot(outcome, picture)
    print(table(outcome))
