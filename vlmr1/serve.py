"""The verb `vlmr1 serve`: its options, and what it prints. Starting and stopping is `vlmr1.serving.launch`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from vlmr1.stopping import end_in_order


def add_serve(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command its verb."""
    serve = verbs.add_parser("serve", help="serve a checkpoint over an OpenAI-compatible HTTP API")
    serve.add_argument("checkpoint", metavar="CHECKPOINT|NAME@VERSION", help="a folder, e.g. models/grpo, or a release")
    serve.add_argument(
        "--engine", choices=["vllm", "vllm-ascend", "xllm"], default="vllm", help="what serves it (default: vllm)"
    )
    serve.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=DIR", help="serve an adapter beside it, by that name"
    )
    serve.add_argument(
        "--name", default="", help="as which it is served (default: the folder's name, or the release's)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine alone)")
    serve.add_argument("--port", type=int, default=8000, help="default: 8000")
    serve.add_argument("--dtype", metavar="NAME", help="e.g. bfloat16 (default: the engine's choice)")
    serve.add_argument(
        "--max-length", type=int, metavar="N", help="tokens of prompt and completion together (default: the model's)"
    )
    serve.add_argument("--pictures", type=int, metavar="N", help="most pictures of a request (default: the engine's)")
    serve.add_argument("--python", metavar="PATH", help="interpreter with vLLM (default: $VLMR1_VLLM_PYTHON)")
    serve.add_argument(
        "--image", metavar="NAME", help="container image (default of vllm-ascend: VLM-R1's; xllm needs one)"
    )
    serve.add_argument("--npus", metavar="0,1", help="Ascend devices of the container (default: 0)")
    serve.add_argument(
        "--rollouts", choices=["adapter", "checkpoint", "nccl"], help="sample for GRPO: its rollout.weights"
    )
    serve.add_argument("--rank", type=int, metavar="N", help="trained.lora.r, for --rollouts adapter")
    serve.add_argument("--log", type=Path, metavar="FILE", help="the server's log (default: work/serve/NAME-PORT.log)")
    serve.add_argument(
        "--patience", type=float, default=1800.0, metavar="S", help="seconds until it must be healthy (default: 1800)"
    )
    serve.add_argument("--print", action="store_true", help="show the command, and start nothing")
    serve.add_argument("--flags", default="", metavar="=WORDS", help="the engine's own, e.g. --flags='--enforce-eager'")
    serve.add_argument("--store", help="of releases (default: params.yaml's publish.store)")
    serve.set_defaults(run=_serve)


def _serve(chosen: argparse.Namespace) -> None:
    from vlmr1.serving.commands import Serving, line, remarks
    from vlmr1.serving.launch import running
    from vlmr1.serving.starting import Starting

    if not chosen.patience > 0:
        raise ValueError(f"--patience {chosen.patience:g}: seconds above 0 are wanted")
    checkpoint, name = _checkpoint(chosen)
    serving = Serving(
        checkpoint,
        chosen.engine,
        name,
        tuple(_adapter(one) for one in chosen.adapter),
        chosen.host,
        chosen.port,
        chosen.dtype,
        chosen.max_length,
        chosen.pictures,
        chosen.python,
        chosen.image,
        None if chosen.npus is None else tuple(_number(one) for one in chosen.npus.split(",")),
        tuple(shlex.split(chosen.flags)),
        chosen.rollouts,
        chosen.rank,
    )
    said = line(serving)  # before the notes, for it may be refused
    for remark in remarks(serving):
        print(f"note: {remark}", file=sys.stderr)
    if chosen.print:
        print(said)
        return
    end_in_order()  # so that the server is stopped too
    log = chosen.log or Path("work/serve") / f"{serving.served}-{serving.port}.log"
    starting = Starting(f"{serving.engine} with {serving.checkpoint}", log)
    try:
        with running(serving, log, chosen.patience, waited=starting.waited, stopping=starting.stopping) as server:
            starting.healthy()
            print(f"{serving.served} is served at {server.url}; its log is {log}; Ctrl-C stops it", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("stopped")


def _checkpoint(chosen: argparse.Namespace) -> tuple[Path, str]:
    """The folder, and as what it is served: a release lands in the cache, and is served by its own name."""
    folder = Path(chosen.checkpoint)
    if folder.exists() or not {"@", "#"} & set(chosen.checkpoint):
        return folder, chosen.name
    from vlmr1.release.commands import store_of
    from vlmr1.release.landed import landed

    release, folder = landed(chosen.checkpoint, store_of(chosen), lambda line: print(line, file=sys.stderr, flush=True))
    return folder, chosen.name or release.partition("@")[0]


def _adapter(word: str) -> tuple[str, Path]:
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        raise ValueError(f"--adapter {word}: write NAME=DIR, e.g. grpo=models/grpo/adapter")
    return name, Path(folder)


def _number(word: str) -> int:
    if not word.strip().isdigit():
        raise ValueError(f"--npus: {word!r} is no device's number; write e.g. 0,1")
    return int(word)
