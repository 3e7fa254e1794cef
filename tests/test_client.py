"""The client of OpenAI-compatible servers: what it sends, how patiently, and what becomes of a server that falls."""

import base64
import io
import re
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from PIL import Image

from tests.fake_server import Fake
from vlmr1.serving import client
from vlmr1.serving.client import Refused, Request, Server, chat, listing, models_of, server_at
from vlmr1.serving.connections import once, waiting
from vlmr1.serving.messages import body_of, reply_of
from vlmr1.serving.vllm import Away, version_of

RED = Image.new("RGB", (8, 6), "red")
BLUE = Image.new("RGB", (4, 4), "blue")


def told(body):
    """The text that a request's first part says."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else next(p["text"] for p in content if p["type"] == "text")


def quick(fake, **more):
    return Server(fake.url, "m", "k", **({"timeout": 5, "tries": 3, "pause": 0.01} | more))


def questions(count):
    return [Request(f"q{i}", max_tokens=4) for i in range(count)]


@pytest.fixture
def fake():
    with Fake(answer=told) as running:
        yield running


# What is sent.


def kinds(request):
    parts = body_of(request)["messages"][0]["content"]
    return [p.get("text", p["type"]) for p in parts]


def test_pictures_stand_where_the_text_says_so():
    assert body_of(Request("only words"))["messages"] == [{"role": "user", "content": "only words"}]
    assert kinds(Request("where?", (RED,))) == ["image_url", "where?"]
    assert kinds(Request("see <image> and <image>!", (RED, BLUE))) == ["see ", "image_url", " and ", "image_url", "!"]
    assert kinds(Request("<image><image>both", (RED, BLUE))) == ["image_url", "image_url", "both"]
    with pytest.raises(ValueError, match="says <image> 1 times and has 2 pictures"):
        body_of(Request("<image>", (RED, BLUE)))


def test_a_picture_loses_nothing_on_its_way():
    part = body_of(Request("q", (RED,)))["messages"][0]["content"][0]
    head, data = part["image_url"]["url"].split(",")
    seen = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/png;base64" and seen.tobytes() == RED.tobytes() and seen.size == RED.size


def test_only_what_was_asked_for_is_sent():
    assert set(body_of(Request("q"))) == {"messages", "temperature"}
    assert set(body_of(Request("q", temperature=None))) == {"messages"}
    full = Request("q", (), 5, 0.7, 0.9, 3, 0.1, 1.2, 11, 2, True, True, (7, 8), {"logit_bias": {"5": -100}})
    body = body_of(full)
    body.pop("messages")
    assert body == {
        "temperature": 0.7, "max_tokens": 5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2,
        "seed": 11, "n": 2, "logprobs": True, "return_token_ids": True, "stop_token_ids": [7, 8],
        "logit_bias": {"5": -100},
    }  # fmt: skip


def test_what_the_server_gives_is_read():
    reply = reply_of(
        '{"choices": [{"index": 1, "message": {"content": null}, "finish_reason": "length"}, {"index": 0, "message":'
        ' {"content": "a"}, "token_ids": [4, 2], "logprobs": {"content": [{"logprob": -0.5}, {"logprob": 0}]},'
        ' "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}, "prompt_token_ids": [1, 2],'
        ' "weight_version": "w1"}'
    )
    first, second = reply.completions
    assert (first.text, first.token_ids, first.logprobs) == ("a", (4, 2), (-0.5, 0.0))
    assert (second.text, second.token_ids, second.logprobs, second.finish_reason) == ("", None, None, "length")
    assert (reply.prompt_tokens, reply.prompt_token_ids, reply.weight_version) == (9, (1, 2), "w1")
    parts = '[{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]'
    assert reply_of(f'{{"choices": [{{"message": {{"content": {parts}}}}}]}}').completions[0].text == "a b"
    for odd in ("no JSON", "[]", '{"choices": [{}]}', '{"choices": []}', '{"error": "x"}'):
        with pytest.raises(ValueError, match="not an OpenAI chat completion"):
            reply_of(odd)


def test_the_key_comes_from_the_environment_and_is_never_shown(fake, monkeypatch):
    monkeypatch.setenv("VLMR1_SERVER_KEY", "secret")
    server = server_at(fake.url, "m")
    assert chat([server], questions(1))[0].completions[0].text == "q0"
    assert fake.keys == ["Bearer secret"] and "secret" not in f"{server} {server!r}"
    with pytest.raises(ValueError, match="server 'localhost:8000' is no address"):
        server_at("localhost:8000", "m")


@pytest.mark.parametrize(
    "url", ["http://localhost:abc/v1", "http://", "http://:80/v1", "http://[::1/v1", "http://a b/v1", "http://h:0/v1"]
)
def test_a_mistyped_address_is_said_in_a_sentence(url):
    said = re.escape(f"server {url!r} is no address (")
    with pytest.raises(ValueError, match=f"^{said}.*; write e.g. http://localhost:8000/v1$"):
        server_at(url, "m")


# How it is asked.


def test_many_are_asked_side_by_side_and_come_back_in_order(fake):
    fake.slow = 0.02
    heard = []
    replies = chat([quick(fake, at_once=5)], questions(40), lambda place, reply: heard.append((place, reply)))
    assert [r.completions[0].text for r in replies] == [f"q{i}" for i in range(40)]
    assert len(fake.requests) == 40 and 1 < fake.most <= 5
    assert sorted(place for place, _ in heard) == list(range(40)) and all(replies[p] is r for p, r in heard)
    assert chat([quick(fake)], []) == []


def test_requests_are_made_only_when_they_can_be_sent(fake):
    made, answered, ahead = [], [], []

    def requests():
        for request in questions(30):
            made.append(request)
            ahead.append(len(made) - len(answered))
            yield request

    chat([quick(fake, at_once=3)], requests(), lambda place, reply: answered.append(place))
    assert len(answered) == 30 and max(ahead) <= 5  # those under way, the next one, and one whose telling is under way


def test_pictures_are_written_side_by_side(fake, monkeypatch):
    both = threading.Barrier(2, timeout=5)  # neither passes alone

    def written(request):
        both.wait()
        return body_of(request)

    monkeypatch.setattr(client, "body_of", written)
    assert len(chat([quick(fake, at_once=2)], questions(4))) == 4


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "garbled", ("wait", 0.4)])
def test_a_stumble_is_asked_again(fake, fault):
    fake.faults = [fault, fault]
    server = quick(fake, timeout=0.2 if isinstance(fault, tuple) else 5)
    assert chat([server], questions(1))[0].completions[0].text == "q0" and len(fake.requests) == 3


def test_a_server_that_says_how_long_to_wait_is_given_that(fake):
    fake.faults, fake.retry_after = [429], 1
    start = time.monotonic()
    chat([quick(fake)], questions(1))
    assert time.monotonic() - start >= 1


def test_what_a_server_asks_for_has_bounds():
    assert [waiting(said) for said in ("7", " 7 ", "99999", "²", "soon", "")] == [7, 7, 60, 0, 0, 0]
    assert 20 < waiting(format_datetime(datetime.now(UTC) + timedelta(seconds=30))) <= 30


def test_a_mute_server_is_asked_whether_it_is_healthy_and_then_given_up(fake, caplog):
    """A host that takes connections and says nothing: it costs one time limit, not one for every try."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        other = Server(f"http://127.0.0.1:{mute.getsockname()[1]}/v1", "m", timeout=0.4, tries=100, pause=10)
        start = time.monotonic()
        replies = chat([quick(fake), other], questions(8))
    assert [r.completions[0].text for r in replies] == [f"q{i}" for i in range(8)] and time.monotonic() - start < 3
    assert "no answer within 0.4 s, nor does it say that it is healthy" in caplog.text


def test_a_late_server_that_says_that_it_fails_is_given_up():
    class Failing(Fake):
        def look(self, path):
            return 503 if path == "/health" else {}

    with Failing(told, slow=0.3) as fake:
        with pytest.raises(ConnectionError, match=r"within 0\.1 s, nor does it say that it is healthy"):
            chat([quick(fake, timeout=0.1)], questions(1))
        assert len(fake.requests) == 1


def test_what_cannot_be_unpacked_is_a_fault_of_the_server(fake):
    fake.garbled = True
    with pytest.raises(ConnectionError, match="gives no answer"):
        chat([quick(fake, tries=1)], questions(1))
    with pytest.raises(Away):
        version_of(quick(fake))


def test_this_machines_own_server_is_asked_past_a_proxy_by_any_address(monkeypatch):
    class Elsewhere(Fake):
        def server_bind(self):
            self.server_address = ("127.0.0.2", 0)
            super().server_bind()

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with Elsewhere() as fake:
        address = f"http://127.0.0.2:{fake.server_port}/health"
        assert once("GET", address, 5, own=True).is_success
        with pytest.raises(httpx.ConnectError):
            once("GET", address, 5)


def test_no_proxy_is_asked_for_this_machines_own_servers(fake, monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for host in ("127.0.0.1", "localhost"):
        server = quick(fake)
        server = replace(server, url=server.url.replace("127.0.0.1", host))
        assert chat([server], questions(1)) and listing(server)
    with pytest.raises(ConnectionError, match="does not say which models"):
        listing(replace(server, url="http://192.0.2.1:8000/v1", timeout=0.5))


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_a_server_that_refuses_whoever_asks_is_left_out(fake, caplog, status):
    fell = []
    with Fake(lambda body: status, slow=0.01) as other:
        replies = chat([quick(fake), quick(other)], questions(20), None, lambda *of: fell.append(of))
    assert [r.completions[0].text for r in replies] == [f"q{i}" for i in range(20)]
    assert [server.url for server, _ in fell] == [other.url] and f"it answers {status}" in caplog.text


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_ends_the_call_and_is_named(status):
    with Fake(lambda body: status if told(body) == "q3" else "yes") as one, Fake(lambda body: status) as other:
        with pytest.raises(Refused, match=f"refuses: it answers {status}") as error:
            chat([quick(one)], questions(6))
        assert (error.value.status, error.value.place, error.value.lasting) == (status, 3, True)
        with pytest.raises(Refused, match=f"refuses: it answers {status}"):
            chat([quick(one), quick(other)], questions(6))


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([500] * 3, "m at http.*gives no answer: it answers 500 .*told to"),
        ([401], "refuses: it answers 401"),
        ([404], "refuses: it answers 404"),
        (["odd"], "not an OpenAI chat completion"),
        ([("wait", 0.3)] * 3, "no answer within 0.1 s"),
    ],
)
def test_no_answer_is_an_error_that_names_the_server(fake, faults, said):
    fake.faults = list(faults)
    with pytest.raises(ConnectionError, match=said):
        chat([quick(fake, timeout=0.1 if isinstance(faults[0], tuple) else 5)], questions(1))
    assert len(fake.requests) == len(faults)


def test_what_goes_wrong_in_the_caller_is_raised_as_it_is(fake):
    def broken():
        yield Request("q0")
        raise FileNotFoundError("a picture")

    with pytest.raises(FileNotFoundError, match="a picture"):
        chat([quick(fake)], broken())
    with pytest.raises(ZeroDivisionError):
        chat([quick(fake)], questions(3), lambda place, reply: 1 // 0)


# Several servers.


def test_several_servers_share_the_work():
    with Fake(told, slow=0.02) as one, Fake(told, slow=0.02) as two:
        replies = chat([quick(one, at_once=4), quick(two, at_once=4)], questions(40))
    assert [r.completions[0].text for r in replies] == [f"q{i}" for i in range(40)]
    assert len(one.requests) + len(two.requests) == 40 and min(len(one.requests), len(two.requests)) >= 10


def test_a_server_that_falls_is_left_out_once_and_its_requests_go_to_the_others(caplog):
    with Fake(told, slow=0.01) as one, Fake(told, slow=0.01) as two:
        heard = []

        def fell(place, reply):
            heard.append(place)
            if len(heard) == 10:
                two.stop()

        replies = chat([quick(one, at_once=4), quick(two, at_once=4)], questions(60), fell)
    assert [r.completions[0].text for r in replies] == [f"q{i}" for i in range(60)]
    assert sorted(heard) == list(range(60))
    assert [two.url in r.message for r in caplog.records] == [True]


def test_when_all_servers_fall_all_are_named():
    with Fake(told) as one, Fake(told) as two:
        one.stop()
        two.faults = [500] * 100
        with pytest.raises(ConnectionError, match=f"(?s){one.url}.*{two.url}.*500|{two.url}.*500.*{one.url}"):
            chat([quick(one), quick(two)], questions(5))


def test_a_server_says_which_models_it_serves(fake):
    assert models_of(quick(fake)) == ["m"]
    with pytest.raises(ConnectionError, match="does not say which models"):
        models_of(Server("http://127.0.0.1:9/v1", "m"))
