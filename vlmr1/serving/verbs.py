"""The verbs `vlmr1 serve` and `vlmr1 bench-serve`: their options, and what they print."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from vlmr1.stopping import end_in_order


def add_serving(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command its verbs."""
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
    serve.add_argument("--log", type=Path, metavar="FILE", help="the server's log (default: work/serve/NAME.log)")
    serve.add_argument(
        "--patience", type=float, default=1800.0, metavar="S", help="seconds until it must be healthy (default: 1800)"
    )
    serve.add_argument("--print", action="store_true", help="show the command, and start nothing")
    serve.add_argument("--flags", default="", metavar="=WORDS", help="the engine's own, e.g. --flags='--enforce-eager'")
    serve.add_argument("--store", help="of releases (default: params.yaml's publish.store)")
    serve.set_defaults(run=_serve)
    add_bench(verbs)


def _serve(chosen: argparse.Namespace) -> None:
    from vlmr1.serving.checks import check
    from vlmr1.serving.commands import Serving, command, environment, remarks
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
    check(serving)
    if chosen.print:
        settings = [f"{key}={shlex.quote(value)}" for key, value in environment(serving).items()]
        print(" ".join([*settings, shlex.join(command(serving))]))
        return
    end_in_order()  # so that the server is stopped too
    for remark in remarks(serving):
        print(f"note: {remark}", file=sys.stderr)
    log = chosen.log or Path("work/serve") / f"{serving.served}.log"
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
    from vlmr1.playground.naming import landed
    from vlmr1.release.commands import store_of

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


def add_bench(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command its verb `bench-serve`."""
    bench = verbs.add_parser("bench-serve", help="how fast a server answers questions about pictures")
    bench.add_argument("--url", action="append", required=True, metavar="URL", help="twice: two servers side by side")
    bench.add_argument("--model", action="append", default=[], metavar="NAME", help="a server's, in the order of --url")
    bench.add_argument("--concurrency", default="1,2,4,8,16,32", metavar="N,N", help="requests under way together")
    bench.add_argument("--rounds", type=int, default=4, metavar="N", help="requests of a level for each under way")
    bench.add_argument("--picture", default="640x640", metavar="WxH", help="size of the pictures")
    bench.add_argument("--tokens", type=int, default=512, metavar="N", help="of an answer (default: 512)")
    bench.add_argument("--any-length", action="store_true", help="let answers end early: servers without ignore_eos")
    bench.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds a request may take")
    bench.add_argument("--harness", choices=["own", "vllm"], default="own", help="ours, or vllm bench serve")
    bench.add_argument("--python", metavar="PATH", help="of harness vllm (default: $VLMR1_VLLM_PYTHON)")
    bench.add_argument("--tokenizer", type=Path, metavar="DIR", help="of harness vllm: the served checkpoint's folder")
    bench.add_argument("--json", type=Path, metavar="OUT", help="where the figures go")
    bench.add_argument("--plot", type=Path, metavar="OUT.png", help="where the plot goes")
    bench.set_defaults(run=_bench)


def _bench(chosen: argparse.Namespace) -> None:
    from vlmr1.files import rounded, write_json
    from vlmr1.serving.bench import Load, as_json, bench, plot, table
    from vlmr1.serving.client import models_of, server_at
    from vlmr1.serving.commands import interpreter
    from vlmr1.serving.harness import by_vllm

    if len(chosen.url) > 2 or len(set(chosen.url)) < len(chosen.url):
        raise ValueError("--url: one server, or two different ones")
    if chosen.model and len(chosen.model) != len(chosen.url):
        raise ValueError("--model: name one for each --url, or none")
    levels = tuple(_positive("--concurrency", one) for one in chosen.concurrency.split(","))
    width, _, height = chosen.picture.partition("x")
    size = (_positive("--picture", width), _positive("--picture", height))
    rounds, tokens = _positive("--rounds", str(chosen.rounds)), _positive("--tokens", str(chosen.tokens))
    load = Load(levels, rounds, size, tokens, not chosen.any_length)
    if (chosen.harness == "vllm") != (chosen.tokenizer is not None) or (chosen.harness == "own" and chosen.python):
        raise ValueError("--harness vllm: needs --tokenizer; --tokenizer and --python belong to it alone")
    found = {}
    for place, url in enumerate(chosen.url):
        model = chosen.model[place] if chosen.model else next(iter(models_of(server_at(url, ""))))
        server = server_at(url, model, timeout=chosen.timeout)
        if chosen.harness == "vllm":
            found[url] = by_vllm(interpreter(chosen.python), server, chosen.tokenizer, load)
        else:
            found[url] = bench(server, load)
    print(table(found, load))
    if chosen.json is not None:
        write_json(chosen.json, rounded(as_json(found, load)))
    if chosen.plot is not None:
        plot(found, chosen.plot)


def _positive(flag: str, word: str) -> int:
    if not word.strip().isdigit() or int(word) < 1:
        raise ValueError(f"{flag}: {word!r} is no whole number above 0")
    return int(word)
