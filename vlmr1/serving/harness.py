"""bench-serve by a public harness: vLLM's `vllm bench serve`, or ModelScope's `evalscope perf`, where one is installed.

Each is run by its modules from an environment of its own, a level's round at a time, on a file with the very requests
that the built-in loop would send. Of what it writes the times of each request are read, so that all figures are made
alike. Where their clocks differ: `vllm bench serve` takes the first event of an answer for its first token, even one
without text.
Left out on purpose: their own data sets, rates of arrival and reports.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmr1.serving.bench import Failure, Round, Timed, Told
from vlmr1.serving.client import Server
from vlmr1.serving.commands import PYTHON, QUIET
from vlmr1.serving.messages import Request, body_of

PYTHONS = {"vllm": PYTHON, "evalscope": "VLMR1_EVALSCOPE_PYTHON"}  # variables that name the interpreter
NEEDED = {"vllm": "vllm", "evalscope": "'evalscope[perf]'"}  # what pip installs there
VERSION = """
import sys
from importlib.metadata import packages_distributions, version
print(version(packages_distributions()[sys.argv[1]][0]))
"""  # of a module, whose distribution may have another name, as vLLM's for the CPU
VLLM = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
EVALSCOPE = """
import json, os, sys
from evalscope.perf.arguments import Arguments
from evalscope.perf.main import run_perf_benchmark
run_perf_benchmark(Arguments(**json.loads(sys.argv[1]), api_key=os.environ.get("OPENAI_API_KEY")))
"""
STARTS = 300.0  # seconds in which it must have started
LINES = 8  # of its output that a fault is reported with


@dataclass(frozen=True)
class Harness:
    """A `bench.Loop`, by `vllm` or `evalscope`."""

    which: str
    python: str
    version: str

    def __str__(self) -> str:
        return {"vllm": "vllm bench serve", "evalscope": "evalscope perf"}[self.which] + f" {self.version}"

    def __call__(self, server: Server, requests: Sequence[Request], at_once: int, told: Told) -> Round:
        """Raises ConnectionError with the end of its output where it fails."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            asked = {"vllm": vllm_asked, "evalscope": evalscope_asked}[self.which]
            words = [self.python, "-c", *asked(server, requests, at_once, folder)]
            said = self._run(words, server, math.ceil(len(requests) / at_once), folder)
            read = {"vllm": vllm_found, "evalscope": evalscope_found}[self.which]
            found = read(folder, requests, said)
        told(len(requests))
        return found

    def _run(self, words: list[str], server: Server, turns: int, folder: Path) -> str:
        """Its output."""
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | QUIET
        kept |= {"OPENAI_API_KEY": server.key} if server.key else {}
        patience = STARTS + turns * server.timeout
        try:
            done = subprocess.run(
                words,
                env=kept,
                cwd=folder,
                timeout=patience,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            raise ConnectionError(f"{self} did not end within {patience:g} s") from error
        if done.returncode:
            raise ConnectionError(f"{self} ended with {done.returncode}:\n  {_end(done.stdout)}")
        return done.stdout


def harness(which: str, given: str | None) -> Harness:
    """The harness of an environment. Raises ValueError where none is named, or it is not there."""
    python = given or os.environ.get(PYTHONS[which], "")
    if not python:
        raise ValueError(f"--harness {which}: give --python, or set {PYTHONS[which]}, the interpreter that has {which}")
    if not Path(python).is_file():
        raise ValueError(f"--python {python}: no such interpreter; name the one of an environment with {which}")
    done = subprocess.run([python, "-c", VERSION, which], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"--python {python}: has no {which}; {python} -m pip install {NEEDED[which]}")
    return Harness(which, python, done.stdout.strip())


def vllm_asked(server: Server, requests: Sequence[Request], at_once: int, folder: Path) -> list[str]:
    """The script and words of one round of `vllm bench serve`."""
    _write(folder, [{"content": body_of(one)["messages"][0]["content"]} for one in requests])
    words = [VLLM, "--backend", "openai-chat", "--base-url", server.address("")[:-1], "--endpoint", "/chat/completions"]
    words += ["--model", server.model, "--skip-tokenizer-init", "--temperature", "0"]
    words += ["--dataset-name", "custom_image", "--dataset-path", str(folder / "asked.jsonl"), "--disable-shuffle"]
    words += ["--num-prompts", str(len(requests)), "--custom-output-len", str(requests[0].max_tokens)]
    words += ["--max-concurrency", str(at_once), "--ready-check-timeout-sec", "0", "--disable-tqdm"]
    words += ["--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "found.json"]
    return [*words, *(["--ignore-eos"] if requests[0].extra.get("ignore_eos") else [])]


def vllm_found(folder: Path, requests: Sequence[Request], output: str) -> Round:
    """What its detailed result says of each request."""
    path = folder / "found.json"
    if not path.is_file():
        raise ConnectionError(f"vllm bench serve wrote no result:\n  {_end(output)}")
    said = json.loads(path.read_text(encoding="utf-8"))
    found = Round(seconds=said["duration"])
    columns = zip(requests, said["ttfts"], said["itls"], said["output_lens"], said["errors"], strict=True)
    for request, first, steps, tokens, error in columns:
        if error:
            found.failures.append(Failure("failed", f"gives no answer: {error.strip().splitlines()[-1]}"))
        else:
            found.take(request, Timed(first + sum(steps), first, tokens, len(steps) + 1))
    return found


def evalscope_asked(server: Server, requests: Sequence[Request], at_once: int, folder: Path) -> list[str]:
    """The script and words of one round of `evalscope perf`."""
    _write(folder, [{"model": server.model} | body_of(one) for one in requests])
    asked: dict[str, Any] = {"url": server.address("chat/completions"), "model": server.model, "api": "openai"}
    asked |= {"dataset": "line_by_line", "dataset_path": str(folder / "asked.jsonl"), "number": len(requests)}
    asked |= {"parallel": at_once, "total_timeout": server.timeout, "no_test_connection": True}
    return [EVALSCOPE, json.dumps(asked | {"outputs_dir": str(folder), "no_timestamp": True, "name": "found"})]


def evalscope_found(folder: Path, requests: Sequence[Request], output: str) -> Round:
    """What its database says of each request; it keeps no reasons."""
    paths = list(folder.rglob("benchmark_data.db"))
    if len(paths) != 1:
        raise ConnectionError(f"evalscope perf wrote no result:\n  {_end(output)}")
    columns = "success, start_time, completed_time, latency, first_chunk_latency, completion_tokens"
    with sqlite3.connect(paths[0]) as base:
        rows = base.execute(f"SELECT {columns}, json_array_length(inter_token_latencies) FROM result").fetchall()
    base.close()
    found = Round(seconds=max(row[2] for row in rows) - min(row[1] for row in rows))
    reasons = [line for line in output.splitlines() if "Error" in line]
    for success, _, _, latency, first, tokens, steps in rows:
        if success:
            found.take(requests[0], Timed(latency, first, tokens, steps + 1))
        else:
            said = reasons[0].strip() if reasons else _end(output)
            found.failures.append(Failure("failed", f"gives no answer: {said}"))
    return found


def _write(folder: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "asked.jsonl").write_text(text, encoding="utf-8")


def _end(output: str) -> str:
    return "\n  ".join(output.splitlines()[-LINES:])
