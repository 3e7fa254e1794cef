"""bench-serve by vLLM's own `vllm bench serve`, where an environment with vLLM is at hand: the same figures, its loop.

Its requests are random words beside random pictures of the wanted size. It is run by its module, for builds whose
console command does not start. Left out on purpose: its other data sets and rates of arrival.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from vlmr1.serving.bench import Level, Load
from vlmr1.serving.client import Server
from vlmr1.serving.commands import QUIET

RUN = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
WORDS = 32  # tokens of text in a prompt
LINES = 8  # of its output that a fault is reported with


def by_vllm(python: str, server: Server, tokenizer: Path, load: Load) -> dict[int, Level]:
    """Figures by concurrency, as `bench` gives them; `tokenizer` is the checkpoint's folder.

    Raises ConnectionError with the end of its output where it fails.
    """
    return {concurrency: _level(python, server, tokenizer, load, concurrency) for concurrency in load.concurrency}


def command(python: str, server: Server, tokenizer: Path, load: Load, concurrency: int, result: Path) -> list[str]:
    """The command of one level."""
    width, height = load.size
    words = [python, "-c", RUN, "--backend", "openai-chat", "--base-url", server.url.rstrip("/").removesuffix("/v1")]
    words += ["--endpoint", "/v1/chat/completions", "--model", server.model, "--tokenizer", str(tokenizer.resolve())]
    words += ["--dataset-name", "random-mm", "--random-input-len", str(WORDS), "--random-output-len", str(load.tokens)]
    words += ["--random-mm-base-items-per-request", "1", "--random-mm-num-mm-items-range-ratio", "0"]
    words += ["--random-mm-limit-mm-per-prompt", json.dumps({"image": 1, "video": 0})]
    words += ["--random-mm-bucket-config", json.dumps({f"({height}, {width}, 1)": 1.0}).replace('"', "")]
    words += ["--num-prompts", str(load.rounds * concurrency), "--max-concurrency", str(concurrency)]
    # A seed for each level: what was asked before is remembered.
    words += [
        "--seed",
        str(load.seed + concurrency),
        "--percentile-metrics",
        "ttft,tpot,e2el",
        "--metric-percentiles",
        "99",
    ]
    words += ["--save-result", "--result-dir", str(result.parent), "--result-filename", result.name]
    return [*words, *(["--ignore-eos"] if load.exactly else [])]


def _level(python: str, server: Server, tokenizer: Path, load: Load, concurrency: int) -> Level:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | QUIET
        kept |= {"OPENAI_API_KEY": server.key} if server.key else {}
        words = command(python, server, tokenizer, load, concurrency, result)
        done = subprocess.run(words, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode or not result.is_file():
            end = "\n  ".join(done.stdout.splitlines()[-LINES:])
            raise ConnectionError(f"vllm bench serve ended with {done.returncode}:\n  {end}")
        return level_of(json.loads(result.read_text(encoding="utf-8")))


def level_of(said: dict[str, Any]) -> Level:
    """Our figures from its result, seconds for its milliseconds."""
    asked = said["completed"] + said.get("failed", 0)
    level: Level = {"requests": asked, "success": said["completed"] / asked, "seconds": said["duration"]}
    level |= {"rps": said["request_throughput"], "tokens_per_second": said["output_throughput"]}
    for name, theirs in (("latency", "e2el"), ("ttft", "ttft"), ("tpot", "tpot")):
        level |= {f"{name}_mean": said[f"mean_{theirs}_ms"] / 1e3, f"{name}_p99": said[f"p99_{theirs}_ms"] / 1e3}
    return level
