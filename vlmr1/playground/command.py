"""The verbs `vlmr1 playground` and `vlmr1 rollouts`: their options, and the server they start.

It binds to loopback unless `--host` says otherwise.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import re
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmr1.playground.asking import Asked
    from vlmr1.playground.rollouts import Run

HOST, PORT = "127.0.0.1", 4700
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # names of this machine that nobody else can have
NAME = re.compile(r"[\w.-]+|\[[\da-fA-F:]+\]")  # a host's, as browsers send it


def add_playground(verbs: Any) -> None:
    """Give the command its two verbs."""
    ask = verbs.add_parser("playground", help="a local page to ask checkpoints on, two side by side")
    ask.add_argument(
        "models",
        nargs="+",
        metavar="CHECKPOINT|NAME@VERSION|URL",
        help="a checkpoint folder, a release, or an OpenAI-compatible server, e.g. http://localhost:8000/v1",
    )
    ask.add_argument("--rollouts", type=Path, metavar="RUN", help="a training to look through on the same page")
    ask.add_argument(
        "--like", type=Path, metavar="DIR", help="a checkpoint folder of the server's model, for pictures and boxes"
    )
    ask.add_argument("--store", help="of releases (default: params.yaml's publish.store)")
    look = verbs.add_parser("rollouts", help="look through a training's rollouts on the page, or make a table of them")
    look.add_argument("run_folder", type=Path, metavar="RUN", help="logs/grpo, work/grpo, or train's --output")
    look.add_argument("--parquet", type=Path, metavar="FILE", help="write the rollouts as Parquet, and show no page")
    for verb, run in ((ask, _playground), (look, _rollouts)):
        verb.add_argument("--images", type=Path, metavar="DIR", help="the pictures of RUN, where they have moved")
        verb.add_argument("--host", default=HOST, help=f"where to listen (default: {HOST}, this machine alone)")
        verb.add_argument("--name", action="append", default=[], help="a further name that browsers reach it by")
        verb.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0 for any that is free")
        verb.add_argument("--no-browser", action="store_true", help="only say where the page is")
        verb.set_defaults(run=run)


def _playground(chosen: argparse.Namespace) -> None:
    import vlmr1.stages  # noqa: F401  (quiet libraries, one thread)
    from vlmr1.playground.naming import open_models
    from vlmr1.release.commands import store_of

    answered = names(chosen.host, chosen.name)
    if chosen.images is not None and chosen.rollouts is None:
        raise ValueError("--images: is for --rollouts, which is not given; leave it out")
    run = None if chosen.rollouts is None else _read(chosen.rollouts, chosen.images)
    listening = listen(chosen.host, chosen.port)
    models = open_models(chosen.models, chosen.like, lambda: store_of(chosen), _say)
    _serve(models, run, listening, answered, chosen)


def _rollouts(chosen: argparse.Namespace) -> None:
    answered = names(chosen.host, chosen.name)
    run = _read(chosen.run_folder, chosen.images)
    if chosen.parquet is not None:
        from vlmr1.files import check_target
        from vlmr1.playground.rollouts_table import write_parquet

        check_target("--parquet", chosen.parquet, {"RUN": run.folder})
        print(f"{write_parquet(run, chosen.parquet)} rollouts in {chosen.parquet}")
        return
    _serve([], run, listen(chosen.host, chosen.port), answered, chosen)


def _read(run: Path, images: Path | None) -> Run:
    from vlmr1.playground.rollouts import Run

    _say(f"reading {run} …")
    return Run(run, images)


def listen(host: str, port: int) -> socket.socket:
    """The socket, listening before anything long, so that a second page finds it taken. Raises ValueError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            why = "is taken, perhaps by another page"
        else:
            why = f"cannot be had ({error})"
        raise ValueError(
            f"--host {host} --port {port}: {why}; give another, or --port 0 for any that is free"
        ) from None
    return listening


def _serve(
    models: Sequence[Asked],
    run: Run | None,
    listening: socket.socket,
    answered: Sequence[str],
    chosen: argparse.Namespace,
) -> None:
    """Serve until Ctrl-C."""
    try:
        import uvicorn

        from vlmr1.playground.server import page
    except ImportError as error:
        raise ValueError(f"the page needs {error.name}: pip install 'vlmr1[playground]'") from error
    for folder in [] if run is None else run.elsewhere():
        _say(f"pictures in {folder} are not shown, for it is outside the run; --images names it")
    address = f"http://{_shown(chosen.host)}:{listening.getsockname()[1]}/"
    settings = uvicorn.Config(page(models, run, answered), log_level="warning", timeout_graceful_shutdown=1)
    if not _is_loopback(chosen.host):
        _say(
            f"anybody who reaches this machine as {', '.join(answered)} (--name adds one) may ask, and sees the"
            " rollouts; without --host only this machine does"
        )
    _say(f"the page is at {address} (Ctrl-C ends it)")
    if not chosen.no_browser and _has_screen():
        webbrowser.open(address)
    uvicorn.Server(settings).run(sockets=[listening])


def names(host: str, further: Sequence[str]) -> tuple[str, ...]:
    """The names that the page answers to, as browsers send them. Raises ValueError for what is none.

    No others, wherever it listens: else another site's name, led to this machine, would make the page that site's own.
    """
    if wrong := [name for name in further if not NAME.fullmatch(name)]:
        raise ValueError(f"--name {wrong[0]}: is no host's name; give it alone, without http:// and port")
    return tuple(dict.fromkeys((*LOOPBACK, _shown(host).lower(), *map(str.lower, further))))


def _shown(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_screen() -> bool:
    """Whether a browser would have a screen; one that runs in the terminal would take it."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _say(line: str) -> None:
    print(line, flush=True)
