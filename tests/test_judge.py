"""The language model that judges: asked side by side, once each, patiently, and never replaced."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import COMPUTE
from vlmr1.answers import read
from vlmr1.grpo.scoring import Scorer
from vlmr1.rewards.judge import Judge, asked, judge_of_environment, llm
from vlmr1.sample import Sample, Source
from vlmr1.settings import Asking


class Server(ThreadingHTTPServer):
    """Calls an answer right that says so; `faults` are answered first."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.requests, self.together, self.most, self.lock = [], [], 0, 0, threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((body, self.headers.get("Authorization")))
            self.server.together += 1
            self.server.most = max(self.server.most, self.server.together)
            fault = self.server.faults.pop(0) if self.server.faults else None
        time.sleep(5 if fault == "hang" else 0.02)
        text = body["messages"][0]["content"]
        said = next(line for line in text.splitlines() if line.startswith("The answer to judge"))
        reply = "1.0" if "right" in said else "hm" if "odd" in said else "0.0"
        reply = fault[1] if isinstance(fault, tuple) else reply
        content = b"no JSON" if fault == "odd" else json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        with self.server.lock:
            self.server.together -= 1
        self.send_response(fault if isinstance(fault, int) else 200)
        if fault == "cut":
            self.send_header("Content-Length", str(len(content) + 9))
        self.end_headers()
        if fault != "drip":
            self.wfile.write(content)
        for byte in content if fault == "drip" else b"":
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def judge(server, tmp_path):
    return Judge(f"http://127.0.0.1:{server.server_port}/v1", "m", "k", tmp_path, timeout=5, tries=3, pause=0.01)


def test_verdicts(judge, server):
    assert llm(read("<answer>right</answer>"), "t", "q", judge).value == 1
    assert llm(read("<answer>else</answer>"), "t", "q", judge).value == 0
    odd = llm(read("<answer>odd</answer>"), "t", "q", judge)
    assert (odd.value, odd.parsed) == (0, False) and "hm" in odd.reason
    assert llm(read(""), "t", "q", judge).reason == "no answer to judge" and len(server.requests) == 3
    body, key = server.requests[0]
    assert key == "Bearer k" and body["temperature"] == 0 and body["model"] == "m"
    assert "Question: q" in body["messages"][0]["content"]


def test_many_are_asked_side_by_side_and_none_twice(judge, server):
    prompts = [asked(read(f"right {i % 20}"), "t", "q") for i in range(40)]
    assert judge.verdicts(prompts) == ["1.0"] * 40
    assert len(server.requests) == 20 and server.most > 1
    assert judge.verdicts(prompts) == ["1.0"] * 40 and len(server.requests) == 20


def test_a_judge_that_stumbles_is_asked_again(judge, server):
    server.faults = [500, 429]
    assert judge.verdicts([asked(read("right"), "t", "q")]) == ["1.0"] and len(server.requests) == 3


@pytest.mark.parametrize(
    ("faults", "said"), [([500] * 3, "answers 500"), ([401], "answers 401"), (["odd"], "not an OpenAI chat completion")]
)
def test_a_judge_that_gives_none_is_never_replaced(judge, server, faults, said):
    server.faults = list(faults)
    with pytest.raises(ConnectionError, match=said):
        llm(read("right"), "t", "q", judge)
    assert len(server.requests) == len(faults)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_judge_that_takes_too_long_is_asked_again_and_then_named(judge, server, fault):
    hasty = replace(judge, timeout=0.5, tries=2)
    server.faults = [fault]
    assert hasty.verdicts([asked(read("right"), "t", "q")]) == ["1.0"] and len(server.requests) == 2
    server.faults, started = [fault] * 2, time.monotonic()
    with pytest.raises(ConnectionError, match=r"the judge m at .* gives no answer: no answer within 0\.5 s"):
        hasty.verdicts([asked(read("right again"), "t", "q")])
    assert time.monotonic() - started < 3


def test_an_answer_that_breaks_off_is_asked_for_again(judge, server):
    server.faults = ["cut"]
    assert judge.verdicts([asked(read("right"), "t", "q")]) == ["1.0"] and len(server.requests) == 2


@pytest.mark.parametrize("reply", ["**1.0**", "<think>it is 0.0 or\nnot</think>\n1.0", "`1`", " 1. ", '"1.0"'])
def test_a_verdict_is_read_among_thoughts_and_marks(judge, server, reply):
    server.faults = [("said", reply)]
    assert llm(read("else"), "t", "q", judge).value == 1 and llm(read("else"), "t", "q", judge).value == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [None, "", "maybe", "10", "1.0 or 0.0"])
def test_what_is_no_verdict_is_not_kept_for_good(judge, server, reply, tmp_path):
    server.faults = [("said", reply)]
    first = llm(read("right"), "t", "q", judge)
    assert (first.value, first.parsed, len(server.requests)) == (0, False, 1) and not list(tmp_path.rglob("*.json"))
    assert not llm(read("right"), "t", "q", judge).parsed and len(server.requests) == 1  # this process asks once
    assert llm(read("right"), "t", "q", replace(judge, unread={})).value == 1 and len(server.requests) == 2


def test_verdicts_that_came_are_kept_though_another_fails(judge, server):
    server.faults = [401]
    prompts = [asked(read(f"right {i}"), "t", "q") for i in range(10)]
    with pytest.raises(ConnectionError, match="answers 401"):
        judge.verdicts(prompts)
    spent = len(server.requests)
    assert judge.verdicts(prompts) == ["1.0"] * 10 and len(server.requests) < spent + 10


def test_a_judge_that_is_not_there_is_named(tmp_path):
    away = Judge("http://127.0.0.1:9", "m", "", tmp_path, tries=2, pause=0.01)
    with pytest.raises(ConnectionError, match=r"the judge m at http://127\.0\.0\.1:9 gives no answer.*VLMR1_JUDGE_URL"):
        llm(read("right"), "t", "q", away)


def test_the_environment_names_it(monkeypatch, server, tmp_path):
    sample = Sample(0, (), "q", "t", "math", "llm", "s", "train", ())
    monkeypatch.delenv("VLMR1_JUDGE_URL", raising=False)
    with pytest.raises(ValueError, match="no judge is named; set VLMR1_JUDGE_URL"):
        Scorer({"accuracy": 1.0}, [sample])
    monkeypatch.setenv("VLMR1_JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("VLMR1_JUDGE_MODEL", "m")
    monkeypatch.setenv("VLMR1_JUDGE_CACHE", str(tmp_path))
    assert judge_of_environment().model == "m"
    scorer, texts = Scorer({"accuracy": 1.0}, [sample]), [f"<answer>right {i}</answer>" for i in range(8)]
    scorer.foresee((text, sample) for text in texts)
    assert len(server.requests) == 8
    assert [scorer.judge(text, sample, (0, 0), []).total for text in texts] == [1.0] * 8
    assert len(server.requests) == 8


def test_an_evaluations_answers_are_judged_side_by_side(trained, monkeypatch, server, tmp_path):
    from vlmr1.evaluation.asking import chunks_of
    from vlmr1.evaluation.engines import InProcess

    monkeypatch.setenv("VLMR1_JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("VLMR1_JUDGE_MODEL", "m")
    monkeypatch.setenv("VLMR1_JUDGE_CACHE", str(tmp_path))
    checkpoint, known = trained
    samples = [replace(one, task="math", reward="llm", solution="right") for one in known.samples[:6]]
    asking = Asking(seed=1, limit=None, max_new_tokens=24, temperature=1.0, samples=2)
    chunks = chunks_of([Source("s", "evaluate", known.images, tuple(samples))], asking, 12)
    engine = InProcess(checkpoint, COMPUTE, 112 * 112, 1, 24)
    rows = [row for chunk in chunks for row in engine.ask(chunk)]
    spoken = {(row["index"], row["said"]) for row in rows if row["said"].strip()}
    assert len(rows) == 18 and len(server.requests) == len(spoken) and server.most > 1
    assert all(row["correct"] == ("right" in row["said"]) for row in rows)
