"""The verb `vlmr1 serve`: its options, and what it prints; `vlmr1 bench-serve` beside it."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from vlmr1.serving.bench_verb import add_bench


def add_serving(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command its verbs."""
    serve = verbs.add_parser("serve", help="serve a checkpoint over an OpenAI-compatible HTTP API")
    serve.add_argument("checkpoint", type=Path, help="a pulled folder, models/grpo, or one of your own")
    serve.add_argument("--engine", choices=["vllm", "vllm-ascend", "xllm"], default="vllm")
    serve.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=DIR", help="serve an adapter beside it, by that name"
    )
    serve.add_argument("--name", default="", help="as which it is served (default: the folder's name)")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--dtype", metavar="NAME", help="e.g. bfloat16 (default: the engine's choice)")
    serve.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and completion together")
    serve.add_argument("--pictures", type=int, metavar="N", help="most pictures of a request")
    serve.add_argument("--python", metavar="PATH", help="interpreter with vLLM (default: $VLMR1_VLLM_PYTHON)")
    serve.add_argument("--image", metavar="NAME", help="container image of vllm-ascend or xllm")
    serve.add_argument("--npus", metavar="0,1", help="Ascend devices of the container (default: 0)")
    serve.add_argument(
        "--rollouts", choices=["adapter", "checkpoint", "nccl"], help="sample for GRPO: its rollout.weights"
    )
    serve.add_argument("--rank", type=int, metavar="N", help="trained.lora.r, for --rollouts adapter")
    serve.add_argument("--log", type=Path, metavar="FILE", help="the server's log (default: work/serve/NAME.log)")
    serve.add_argument("--patience", type=float, default=1800.0, metavar="S", help="seconds until it must be healthy")
    serve.add_argument("--print", action="store_true", help="show the command, and start nothing")
    serve.add_argument("--flags", default="", metavar="=WORDS", help="the engine's own, e.g. --flags='--enforce-eager'")
    serve.set_defaults(run=_serve)
    add_bench(verbs)


def _serve(chosen: argparse.Namespace) -> None:
    from vlmr1.serving.commands import Serving, command, environment, remarks
    from vlmr1.serving.launch import running

    serving = Serving(
        chosen.checkpoint,
        chosen.engine,
        chosen.name,
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
    if chosen.print:
        settings = [f"{key}={shlex.quote(value)}" for key, value in environment(serving).items()]
        print(" ".join([*settings, shlex.join(command(serving))]))
        return
    log = chosen.log or Path("work/serve") / f"{serving.served}.log"
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the server is stopped too
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for remark in remarks(serving):
        print(f"note: {remark}", file=sys.stderr)
    try:
        with running(serving, log, chosen.patience) as server:
            print(f"{serving.served} is served at {server.url}; its log is {log}; Ctrl-C stops it", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("stopped")


def _adapter(word: str) -> tuple[str, Path]:
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        raise ValueError(f"--adapter {word}: write NAME=DIR, e.g. grpo=models/grpo/adapter")
    return name, Path(folder)


def _number(word: str) -> int:
    if not word.strip().isdigit():
        raise ValueError(f"--npus: {word!r} is no device's number; write e.g. 0,1")
    return int(word)
