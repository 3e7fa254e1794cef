"""bench-serve: answers that stream, figures of a level, two servers beside each other, and vLLM's own harness."""

import asyncio
import json

import httpx
import pytest

from tests.fake_server import Fake
from vlmr1.cli import main
from vlmr1.serving.bench import Load, Timed, bench, figures, table
from vlmr1.serving.client import Server
from vlmr1.serving.harness import by_vllm, level_of
from vlmr1.serving.harness import command as harness_command
from vlmr1.serving.messages import Request
from vlmr1.serving.stream import stream


def test_figures_of_a_level():
    done = [Timed(1.0, 0.2, 5), Timed(3.0, 0.4, 14)]
    level = figures(done, 2, 4.0)
    assert level["rps"] == 0.5 and level["tokens_per_second"] == pytest.approx(19 / 4) and level["success"] == 0.5
    assert level["latency_mean"] == 2 and level["latency_p99"] == pytest.approx(2.98)
    assert level["ttft_mean"] == pytest.approx(0.3) and level["tpot_mean"] == pytest.approx(0.2)
    assert figures([], 3, 1.0) == {"requests": 3, "success": 0.0}


DELTA = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}'
ENDED = 'data: {"choices": [{"index": 0, "delta": null, "finish_reason": "%s"}]}'


async def streamed(*lines):
    def answer(request):
        return httpx.Response(200, text="\n\n".join(lines))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        return [piece async for piece in stream(client, Server("http://h/v1", "m"), Request("q"))]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([DELTA], "broke off before the end"),
        ([DELTA, 'data: {"error": {"message": "engine died"}}', "data: [DONE]"], "engine died"),
        ([DELTA, ENDED % "abort", "data: [DONE]"], "ended its answer with 'abort'"),
        ([DELTA, "data: []", "data: [DONE]"], "no attribute"),
        ([DELTA, "data: {"], "gives no answer"),
    ],
)
def test_an_answer_that_breaks_off_is_none(lines, said):
    with pytest.raises(ConnectionError, match=said):
        asyncio.run(streamed(*lines))


def test_an_answer_ends_by_its_reason_or_by_the_protocols_word():
    assert [piece.text for piece in asyncio.run(streamed(DELTA, ENDED % "stop"))] == ["a", ""]
    assert [piece.text for piece in asyncio.run(streamed(": waits", DELTA, "data: [DONE]"))] == ["a"]


def test_answers_of_another_length_or_too_late_are_failures():
    with Fake(lambda body: "a b c") as fake:
        with pytest.raises(ConnectionError, match="answers 3 tokens where 4 were asked for; --any-length allows it"):
            bench(Server(fake.url, "m"), Load((1,), rounds=1, size=(32, 16), tokens=4))
        assert bench(Server(fake.url, "m"), Load((1,), 1, (32, 16), 4, exactly=False))[1]["success"] == 1
        fake.faults = [None, ("wait", 0.6)]
        late = bench(Server(fake.url, "m", timeout=0.3), Load((1,), rounds=2, size=(32, 16), tokens=3))
    assert late[1]["success"] == 0.5


def test_a_server_that_fails_sometimes_is_measured_by_the_rest():
    with Fake(lambda body: "a b c d", slow=0.01) as fake:
        fake.faults = [None, 500]
        found = bench(Server(fake.url, "m"), Load((1, 4), rounds=2, size=(32, 16), tokens=4))
    assert found[1]["success"] == 0.5 and found[4]["success"] == 1 and fake.most == 4
    assert found[4]["requests"] == 8 and found[4]["latency_mean"] > found[4]["ttft_mean"] > 0.01
    urls = {body["messages"][0]["content"][0]["image_url"]["url"] for body in fake.requests}
    assert len(urls) == len(fake.requests) == 11 and all(body["ignore_eos"] for body in fake.requests)
    with pytest.raises(ConnectionError, match="gives no answer"):
        bench(Server("http://127.0.0.1:9/v1", "m"), Load((1,)))


def test_two_servers_side_by_side_with_theirs_beside(tmp_path, capsys):
    with Fake(lambda body: "a b c") as one, Fake(lambda body: "a b c", slow=0.05) as two:
        urls = [
            "--url",
            one.url,
            "--url",
            two.url,
            "--concurrency",
            "1,2",
            "--rounds",
            "1",
            "--picture",
            "32x32",
            "--tokens",
            "3",
        ]
        main(["bench-serve", *urls, "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")])
        said = capsys.readouterr().out
        assert f"A: {one.url}\nB: {two.url}\ntheirs, on an Ascend 910B, are of another load" in said
        assert said.splitlines()[3].split() == ["at", "once", "A", "B", "B", "/", "A"]
        cells = {line[9:27].strip(): line[27:].split() for line in said.splitlines()[4:12]}
        first, second, ratio = map(float, cells["latency s"])
        assert ratio == pytest.approx(second / first, rel=0.01) and ratio > 1 and cells["success"] == ["1", "1", "1"]
        assert json.loads((tmp_path / "b.json").read_text())["servers"][two.url]["2"]["success"] == 1
        assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"
        with pytest.raises(SystemExit, match="no whole number above 0"):
            main(["bench-serve", "--url", one.url, "--picture", "640"])


def test_theirs_stand_in_the_same_rows_where_the_load_was_theirs():
    level = {"tokens_per_second": 100.0, "latency_mean": 2.0}
    said = table({"http://one": dict.fromkeys((1, 8), level)}, Load((1, 8))).splitlines()
    assert said[2].split() == ["at", "once", "A", "xllm*", "vllm-ascend*"]
    rows = [line[27:].split() for line in said if "tokens/s" in line]
    assert rows == [["100", "59.1", "17.9"], ["100", "402.5", "140.4"]]
    assert next(line for line in said if "latency s" in line).split()[-3:] == ["2", "-", "-"]
    other = table({"http://one": {1: level}}, Load((1,), exactly=False))
    assert "xllm" not in other and "--picture 640x640 --tokens 512 sets them beside" in other


def test_vllms_own_harness(tmp_path):
    words = harness_command(
        "python", Server("http://h:1/v1", "m"), tmp_path, Load((4,), tokens=9), 4, tmp_path / "r.json"
    )
    for flag, value in (("--base-url", "http://h:1"), ("--num-prompts", "16"), ("--random-output-len", "9")):
        assert words[words.index(flag) + 1] == value
    assert words[words.index("--random-mm-bucket-config") + 1] == "{(640, 640, 1): 1.0}" and words[-1] == "--ignore-eos"
    said = {"completed": 3, "failed": 1, "duration": 2.0, "request_throughput": 1.5, "output_throughput": 40.0}
    said |= {f"{of}_{name}_ms": 250.0 for of in ("mean", "p99") for name in ("ttft", "tpot", "e2el")}
    level = level_of(said)
    assert (level["requests"], level["success"], level["rps"], level["ttft_p99"]) == (4, 0.75, 1.5, 0.25)
    with pytest.raises(ConnectionError, match=r"vllm bench serve ended with"):
        by_vllm("/bin/false", Server("http://h:1/v1", "m"), tmp_path, Load((1,)))
    with pytest.raises(SystemExit, match="needs --tokenizer"):
        main(["bench-serve", "--url", "http://h:1/v1", "--harness", "vllm"])
