"""bench-serve: answers that stream, a level's rounds, servers that fail or go away, and two beside each other."""

import asyncio
import json
import os

import httpx
import pytest

from tests.fake_server import Fake
from vlmr1.cli import main
from vlmr1.serving.bench import Load, Own, Round, Timed, request
from vlmr1.serving.client import Server
from vlmr1.serving.figures import figures, level_of, ratios_of, reasons
from vlmr1.serving.messages import Request
from vlmr1.serving.outcome import Outcome, as_json, seconds, table
from vlmr1.serving.stream import stream

DELTA = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}'
ENDED = 'data: {"choices": [{"index": 0, "delta": null, "finish_reason": "%s"}]}'
SMALL = ["--picture", "32x16", "--tokens", "3", "--rounds", "2"]


def asked(*servers, load):
    """What the built-in loop finds of one round of each server's first level."""
    at_once = load.concurrency[0]
    with Own() as own:
        requests = [request(load, number) for number in range(load.requests(at_once))]
        return [own(server, requests, at_once, lambda _: None) for server in servers]


def of_latency(*latencies, tokens=5):
    return Round([Timed(one, one / 4, tokens, tokens) for one in latencies], seconds=sum(latencies))


async def streamed(*lines, **headers):
    def answer(request):
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream("\n\n".join(lines).encode()))

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


@pytest.mark.parametrize(("timeout", "connect"), [(300.0, 10.0), (2.0, 2.0)])
def test_a_connection_must_stand_soon_however_long_an_answer_may_take(timeout, connect):
    def answer(request):
        assert (request.extensions["timeout"]["read"], request.extensions["timeout"]["connect"]) == (timeout, connect)
        raise httpx.ConnectTimeout("", request=request)

    async def asked():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            async for _ in stream(client, Server("http://h/v1", "m", timeout=timeout), Request("q")):
                pass

    with pytest.raises(ConnectionError, match=f"m at http://h/v1 takes no connection within {connect:g} s"):
        asyncio.run(asked())


def test_an_answer_that_cannot_be_unpacked_is_none():
    with pytest.raises(ConnectionError, match="m at http://h/v1 gives no answer"):
        asyncio.run(streamed(DELTA, **{"Content-Encoding": "gzip"}))


def test_an_answer_ends_by_its_reason_or_by_the_protocols_word():
    assert [piece.text for piece in asyncio.run(streamed(DELTA, ENDED % "stop"))] == ["a", ""]
    assert [piece.text for piece in asyncio.run(streamed(": waits", DELTA, "data: [DONE]"))] == ["a"]


def test_figures_of_a_round():
    level = figures([Round([Timed(1.0, 0.2, 5, 5), Timed(3.0, 0.4, 14, 9)], ["", ""], 4.0)])
    assert level["rps"] == 0.5 and level["tokens_per_second"] == pytest.approx(19 / 4) and level["success"] == 0.5
    assert level["latency_mean"] == 2 and level["pieces_mean"] == 7
    assert level["ttft_mean"] == pytest.approx(0.3) and level["tpot_mean"] == pytest.approx(0.2)
    assert figures([Round([], [""] * 3, 1.0)]) == {"requests": 3, "success": 0.0}


def test_a_p99_is_of_all_rounds_and_the_largest_of_few():
    assert figures([of_latency(*range(1, 51))])["latency_p99"] == 50
    assert level_of([of_latency(*range(1, 51)), of_latency(*range(51, 101))])["latency_p99"] == pytest.approx(99.01)
    assert level_of([of_latency(1.0), of_latency(2.0), of_latency(9.0), Round([], [""])])["latency_mean"] == 2


def test_ratios_are_taken_round_by_round():
    slower = [[of_latency(one)] for one in (1.0, 2.0, 4.0)], [[of_latency(one)] for one in (2.0, 2.0, 2.0)]
    assert ratios_of(*slower)["latency_mean"] == {"median": 1, "least": 0.5, "most": 2}


def test_every_round_is_kept_to_its_share_of_requests():
    load = Load((1, 8), rounds=3, least=4)
    assert (load.requests(1), load.requests(8), load.total) == (4, 16, 60)


def test_no_picture_is_asked_for_twice():
    with Fake(lambda body: "a b c", slow=0.01) as fake:
        main(["bench-serve", "--url", fake.url, "--url", fake.url, "--concurrency", "1,2", *SMALL])
        main(["bench-serve", "--url", fake.url, "--concurrency", "2", *SMALL])
        urls = {body["messages"][0]["content"][0]["image_url"]["url"] for body in fake.requests}
        assert fake.most == 2 and all(body["ignore_eos"] for body in fake.requests)
        assert len(fake.requests) == len(urls) == 2 * (1 + 2 + 2 * (4 + 4)) + 1 + 2 + 2 * 4
    first, again, other = (request(Load((1,), seed=seed), 3) for seed in (7, 7, 8))
    assert first.pictures == again.pictures != other.pictures


def test_answers_of_another_length_or_too_late_are_failures():
    with Fake(lambda body: "a b c") as fake:
        length = asked(Server(fake.url, "m"), load=Load((1,), size=(32, 16), tokens=4))[0]
        assert length.given_up and "4 of another length; the first answers 3 tokens where 4" in reasons([length])
        (free,) = asked(Server(fake.url, "m"), load=Load((1,), size=(32, 16), tokens=4, exactly=False))
        assert len(free.done) == 4
        fake.faults = [("wait", 0.4), 500, "cut"]
        (late,) = asked(Server(fake.url, "m", timeout=0.2), load=Load((1,), size=(32, 16), tokens=3))
    assert len(late.done) == 1 and not late.gone
    said = "1 too late, 1 refused for now (429 or 5xx), 1 cut off; the first gives no answer within 0.2 s"
    assert reasons([late]) == said


def test_a_server_that_stops_answering_ends_the_measurement(tmp_path):
    with Fake(lambda body: "a b c") as fake:
        fake.answer = lambda body: "a b c" if len(fake.requests) <= 13 else 503  # after its warm-up and the first level
        with pytest.raises(SystemExit, match="stopped answering at 2 under way: 4 refused for now") as ended:
            main(
                ["bench-serve", "--url", fake.url, "--concurrency", "1,2,8", *SMALL, "--json", str(tmp_path / "b.json")]
            )
        assert ended.value.code != 0 and len(fake.requests) < 30
    kept = json.loads((tmp_path / "b.json").read_text())
    assert not kept["complete"] and "stopped answering" in kept["stopped"]
    assert kept["servers"][0]["levels"]["1"]["success"] == 1 and kept["servers"][0]["levels"]["8"]["requests"] == 0


def test_what_cannot_end_well_is_refused_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    with Fake(lambda body: "a b c") as fake:
        for words, said in [
            (["--picture", "640"], "--picture 640: write its width and height, e.g. 640x640"),
            (["--concurrency", "0"], "no whole number above 0"),
            (["--timeout", "0"], "--timeout 0: give the seconds"),
            (["--plot", str(tmp_path / "x.xyz")], "no picture ends so"),
            (["--json", str(tmp_path)], "a folder"),
            (["--json", str(tmp_path / "file" / "b.json")], "cannot be written there"),
            (["--model", "other"], "does not serve it, but m"),
            (["--url", "http://127.0.0.1:9/v1"], "does not say which models it serves"),
            (["--python", "python"], "--python belongs to --harness"),
            (["--harness", "vllm", "--python", "/nowhere/python"], "no such interpreter"),
        ]:
            with pytest.raises(SystemExit, match=said):
                main(["bench-serve", "--url", fake.url, *words])
        assert fake.requests == []
        fake.slow = 0.2
        with pytest.raises(SystemExit, match=r"gives no answer within 0.05 s"):
            main(["bench-serve", "--url", fake.url, *SMALL, "--timeout", "0.05"])


def test_two_servers_side_by_side(tmp_path, capsys):
    with Fake(lambda body: "a b c") as one, Fake(lambda body: "a b c", slow=0.03) as two:
        urls = ["--url", one.url, "--url", two.url, "--concurrency", "1,2", *SMALL]
        main(["bench-serve", *urls, "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")])
    said = capsys.readouterr().out
    assert (
        f"A: m at {one.url} (fake)\nB: m at {two.url} (fake)\npictures of 32x16, answers of 3 tokens; 2 rounds" in said
    )
    rows = [line.split() for line in said.splitlines()]
    assert [row[0] for row in rows[6:16]] == ["1", "B", "B/A", "from-to", "2", "B", "B/A", "from-to", "all", "from-to"]
    assert rows[6][:3] == ["1", "A", "8"] and rows[6][-2:] == ["100", "%"]
    kept = json.loads((tmp_path / "b.json").read_text())
    ratio = kept["ratios"]["all"]["latency_mean"]
    assert 1 < ratio["least"] <= ratio["median"] <= ratio["most"]
    assert kept["complete"] and kept["load"]["seed"] >= 0 and kept["made"]["harness"] == "vlmr1's own loop"
    assert kept["servers"][1]["model"] == "m" and len(kept["servers"][1]["levels"]["2"]["rounds"]) == 2
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG" and sorted(os.listdir(tmp_path)) == ["b.json", "b.png"]


def test_theirs_stand_under_ours_and_say_whether_the_load_is_the_same():
    for load, same in ((Load((1, 8)), True), (Load((1,), tokens=9), False)):
        outcome = Outcome([Server("http://h/v1", "m")], ["vllm"], load, "vlmr1's own loop")
        outcome.levels[0][1] = [of_latency(2.0, 4.0)]
        said = table(outcome)
        assert ("Of ANOTHER load than above" in said) is not same and as_json(outcome)["theirs"]["same_load"] is same
        rows = [line.split() for line in said.splitlines()]
        assert ["8", "xllm", "402.5", "677", "ms"] in rows and ["32", "vllm-ascend", "501.5", "1.46", "s"] in rows
        assert next(row for row in rows if row[:2] == ["1", "A"])[5:9] == ["3.00", "s", "4.00", "s*"]


def test_times_have_units_that_a_person_reads():
    assert [seconds(one) for one in (1.519, 0.1804, 0.0053, 7.671e-05)] == ["1.52 s", "180 ms", "5.3 ms", "0.08 ms"]
