"""bench-serve by public harnesses: what they are asked, and what is read of what they wrote."""

import json
import os
import sqlite3
import sys

import pytest

from tests.conftest import free_port
from vlmr1.cli import main
from vlmr1.serving.bench import Load, Round, request
from vlmr1.serving.client import Server
from vlmr1.serving.commands import Serving
from vlmr1.serving.harness import Harness, evalscope_asked, evalscope_found, harness, vllm_asked, vllm_found
from vlmr1.serving.launch import running

LOAD = Load((2,), size=(32, 16), tokens=3)
SERVER = Server("http://h:1/v1", "m")
REQUESTS = [request(LOAD, number) for number in range(4)]


def told(_):
    raise AssertionError("nothing was measured")


def lines(folder):
    return [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]


def test_vllm_is_asked_for_the_same_requests(tmp_path):
    words = vllm_asked(SERVER, REQUESTS, 2, tmp_path)
    for flag, value in (("--base-url", "http://h:1/v1"), ("--num-prompts", "4"), ("--custom-output-len", "3")):
        assert words[words.index(flag) + 1] == value
    assert words[-1] == "--ignore-eos" and "--disable-shuffle" in words
    kinds = [[part["type"] for part in line["content"]] for line in lines(tmp_path)]
    assert kinds == [["image_url", "text"]] * 4 and len({str(line) for line in lines(tmp_path)}) == 4


def test_what_vllm_wrote(tmp_path):
    said = {"duration": 2.0, "ttfts": [0.1, 0.2, 0.3, 0.0], "itls": [[0.1, 0.2], [0.5], [0.1], []]}
    said |= {"output_lens": [3, 3, 2, 0], "errors": ["", "", "", "Traceback:\n  x\nOSError: gone\n"]}
    (tmp_path / "found.json").write_text(json.dumps(said))
    found = vllm_found(tmp_path, REQUESTS, "")
    assert [one.latency for one in found.done] == pytest.approx([0.4, 0.7]) and found.seconds == 2
    assert found.done[0].first == 0.1 and found.done[0].pieces == 3 and not found.gone
    assert [one.kind for one in found.failures] == ["of another length", "failed"]
    assert found.failures[1].said == "gives no answer: OSError: gone"


def test_evalscope_is_asked_for_the_same_requests(tmp_path):
    asked = json.loads(evalscope_asked(SERVER, REQUESTS, 2, tmp_path)[1])
    assert (asked["number"], asked["parallel"], asked["url"]) == (4, 2, "http://h:1/v1/chat/completions")
    assert all(line["max_tokens"] == 3 and line["ignore_eos"] and line["model"] == "m" for line in lines(tmp_path))


def test_what_evalscope_wrote(tmp_path):
    columns = (
        "success, start_time, completed_time, latency, first_chunk_latency, completion_tokens, inter_token_latencies"
    )
    with sqlite3.connect(tmp_path / "benchmark_data.db") as base:
        base.execute(f"CREATE TABLE result({columns})")
        rows = [(1, 10.0, 11.0, 1.0, 0.5, 3, "[0.2, 0.3]"), (0, 10.5, 12.0, None, None, None, "[]")]
        base.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    base.close()
    found = evalscope_found(tmp_path, REQUESTS, "so\nClientConnectorError: no\n")
    assert found == Round([(1.0, 0.5, 3, 3)], [("failed", "gives no answer: ClientConnectorError: no")], 2.0)


@pytest.mark.parametrize("which", ["vllm", "evalscope"])
def test_a_harness_that_is_not_there_or_fails(which, monkeypatch):
    monkeypatch.delenv("VLMR1_VLLM_PYTHON", raising=False)
    monkeypatch.delenv("VLMR1_EVALSCOPE_PYTHON", raising=False)
    with pytest.raises(ValueError, match=f"set VLMR1_{which.upper()}_PYTHON"):
        harness(which, None)
    with pytest.raises(ValueError, match=f"has no {which}; .* -m pip install"):
        harness(which, sys.executable)
    with pytest.raises(ConnectionError, match="ended with 1"):
        Harness(which, "/bin/false", "0")(SERVER, REQUESTS, 2, told)
    with pytest.raises(ConnectionError, match="wrote no result"):
        Harness(which, "/bin/true", "0")(SERVER, REQUESTS, 2, told)


@pytest.mark.vllm
def test_a_real_vllm_by_the_built_in_loop_and_by_its_own(tiny, tmp_path):
    if not (python := os.environ.get("VLMR1_VLLM_PYTHON")):
        pytest.skip("VLMR1_VLLM_PYTHON names no interpreter with vLLM")
    flags = ("--enforce-eager", "--max-num-seqs", "4")
    serving = Serving(tiny[0], port=free_port(), dtype="float32", max_length=1024, python=python, more=flags)
    kept = {}
    with running(serving, tmp_path / "log", 600, {"VLLM_CPU_KVCACHE_SPACE": "1"}) as server:
        for which in ("own", "vllm"):
            words = ["--picture", "112x112", "--tokens", "8", "--concurrency", "2", "--rounds", "2", "--harness", which]
            main(["bench-serve", "--url", server.url, *words, "--json", str(tmp_path / which)])
            kept[which] = json.loads((tmp_path / which).read_text())
    for said in kept.values():
        level = said["servers"][0]["levels"]["2"]
        assert said["complete"] and level["success"] == 1 and level["requests"] == 8
        assert 0 < level["ttft_mean"] <= level["latency_mean"] and level["tokens_per_second"] > 8 * level["rps"] * 0.99
    assert "vllm bench serve" in kept["vllm"]["made"]["harness"]
