"""Evaluation over servers: with answers that vLLM once gave, killed on the way, and beside the real vLLM.

`tests/recorded/vllm.json` holds what vLLM for the CPU answered to `QUESTIONS`, asked of the tests' tiny model. The
tests marked `vllm` start it (VLMR1_VLLM_PYTHON names its interpreter, `make test-vllm` makes one) and record it anew
where VLMR1_RECORD=1 is set.
"""

import json
import os
import shutil
from dataclasses import replace

import httpx
import pytest

from tests.conftest import COMPUTE, ROOT, free_port
from tests.fake_server import Fake, FakeVllm
from vlmr1.errors import TransientError
from vlmr1.evaluation.asking import answers_in, ask, chunks_of, one_by_one
from vlmr1.evaluation.engines import InProcess
from vlmr1.evaluation.over_http import OverHttp
from vlmr1.families import load_family
from vlmr1.files import digest_of_weights, write_json
from vlmr1.prompts import encode
from vlmr1.sample import Source
from vlmr1.serving.commands import Serving
from vlmr1.serving.launch import running
from vlmr1.settings import Evaluate
from vlmr1.tasks import rec

RECORDED = ROOT / "tests/recorded/vllm.json"
PIXELS = 112 * 112
QUESTIONS = 8
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def settings(*urls, **more):
    own = {"max_pixels": None, "seed": 1, "limit": None, "max_new_tokens": 24, "temperature": None, "samples": None}
    http = {"engine": "http", "servers": urls, "served_as": None, "timeout": None}
    return Evaluate(**{**http, "protocol": None, "batch": 4, **own, **more})


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """(checkpoint, source): the tiny model by the name it is served by."""
    checkpoint, source = trained
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(checkpoint, folder)
    samples = [replace(one, problem=f"{one.problem} {i}") for i, one in enumerate(source.samples[:QUESTIONS])]
    return folder, Source("s", "evaluate", source.images, tuple(samples))


def questions(source):
    return {rec.prompt(sample): sample for sample in source.samples}


def recorded(body):
    """What vLLM answered to this question."""
    answers = json.loads(RECORDED.read_text())
    return answers[body["messages"][0]["content"][-1]["text"]]


def listed(checkpoint):
    return {"tiny": "vllm", f"tiny@{digest_of_weights(checkpoint)[:12]}": "vllm"}


def asked(engine, source, work, of):
    """The rows of one evaluation, by item."""
    work.mkdir(exist_ok=True)
    chunks = chunks_of([source], of.asking, 1)
    ask(work, chunks, engine.ask if isinstance(engine, OverHttp) else one_by_one(engine.ask), lambda items: None)
    return {row["index"]: row for rows in answers_in(work).values() for row in rows}


def test_recorded_answers_of_vllm_become_rows(served, tmp_path):
    checkpoint, source = served
    with Fake(recorded, listed(checkpoint)) as fake:
        engine = OverHttp(checkpoint, settings(fake.url), PIXELS)
        rows = asked(engine, source, tmp_path, settings(fake.url))
    assert (engine.about()["server"], engine.about()["engine"]) == ("vllm", "http")
    assert engine.about()["prompts_compared"] == ["token for token"]
    for sample in source.samples:
        (choice,) = recorded({"messages": [{"content": [{"text": rec.prompt(sample)}]}]})["choices"]
        row = rows[sample.id]
        assert row["completion"] == engine.family.decode(choice["token_ids"]) and row["tokens"] == len(
            choice["token_ids"]
        )
        assert row["prompt"] == rec.prompt(sample) and set(row) >= {"iou", "hit", "box", "input_size", "problems"}
    body = fake.requests[0]
    assert body["return_token_ids"] and body["max_tokens"] == 24 and body["temperature"] == 0 and "seed" not in body
    assert body["stop_token_ids"] == engine.family.end_ids and body["repetition_penalty"] == 1.0
    assert len(body["logit_bias"]) == len(engine.family.never_sampled) and fake.most <= 4


def test_a_hosted_endpoint_has_a_name_of_its_own(served):
    checkpoint, _ = served
    with Fake(recorded, {"vendor/tiny-1": "vendor"}) as fake:
        engine = OverHttp(checkpoint, settings(fake.url, served_as="vendor/tiny-1"), PIXELS)
    assert (engine.kind, [server.model for server in engine.servers]) == ("vendor", ["vendor/tiny-1"])


def test_servers_of_two_programs_are_refused(served):
    checkpoint, _ = served
    with Fake(recorded, {"tiny": "vllm"}) as one, Fake(recorded, {"tiny": "sglang"}) as two:
        said = f"servers: {one.url} is vllm, {two.url} is sglang; one evaluation asks one program"
        with pytest.raises(ValueError, match=said):
            OverHttp(checkpoint, settings(one.url, two.url), PIXELS)


def test_how_long_an_answer_may_take_is_the_evaluations_to_say(served):
    checkpoint, _ = served
    with Fake(recorded, {"tiny": "vllm"}) as fake:
        patience = [
            OverHttp(checkpoint, settings(fake.url, timeout=given), PIXELS).servers[0].timeout for given in (None, 7.5)
        ]
    assert patience == [300, 7.5]


def test_a_server_that_reads_another_prompt_or_has_other_weights_is_refused(served, tmp_path):
    checkpoint, source = served

    def longer(body):
        answer = recorded(body)
        ids = [7, *answer["prompt_token_ids"]]
        return answer | {"prompt_token_ids": ids, "usage": {"prompt_tokens": len(ids)}}

    with Fake(longer, listed(checkpoint)) as fake:
        engine = OverHttp(checkpoint, settings(fake.url), PIXELS)
        with pytest.raises(ValueError, match=r"s id .*: the server reads a prompt of .* that is not training's"):
            asked(engine, source, tmp_path, settings(fake.url))
    for models, fault, said in (
        (
            {"tiny": "vllm", "tiny@0123456789ab": "vllm"},
            ValueError,
            r"serves tiny@0123456789ab, and .* now; stop it, and `vlmr1 serve .*tiny --port",
        ),
        ({"other": ""}, TransientError, r"tiny is served nowhere: .* serves other \(`vlmr1 serve .*` starts one"),
    ):
        with Fake(models=models) as fake, pytest.raises(fault, match=said):
            OverHttp(checkpoint, settings(fake.url), PIXELS)
    with FakeVllm(recorded, listed(checkpoint)) as fake:
        fake.look = lambda path: {"is_paused": path == "/is_paused", "weight_version": "default"}
        with pytest.raises(ValueError, match=r"is paused, as by a trainer that was killed; resume it"):
            OverHttp(checkpoint, settings(fake.url), PIXELS)
        del fake.look
        fake.version = "0123.4.0-0"
        with pytest.raises(
            ValueError, match=r"was brought other weights by GRPO than tiny's; stop it, and `vlmr1 serve .* --port"
        ):
            OverHttp(checkpoint, settings(fake.url), PIXELS)
    for given, said in (
        ({"servers": None}, "servers: engine http needs addresses"),
        ({"engine": "in-process", "servers": ("http://h/v1",)}, "nobody asks them; set engine to http"),
        ({"servers": ("localhost",)}, "no address"),
        ({"servers": ("http://localhost:abc/v1",)}, r"servers\n.*'http://localhost:abc/v1' is no address \("),
        ({"engine": "in-process", "servers": None, "timeout": 9.0}, "timeout: of an answer over engine http"),
        ({"servers": "http://localhost/v1"}, r"servers\n.*a list is needed, e\.g\. \[http"),
        ({"servers": ("http://localhost:8000",)}, r"did you mean http://localhost:8000/v1\?"),
    ):
        with pytest.raises(ValueError, match=said):
            settings(**given)


def test_a_killed_server_and_a_killed_evaluation_ask_nothing_twice(served, tmp_path):
    """One of two servers falls in the middle; the other goes on; then the evaluation itself is stopped and repeated."""
    checkpoint, source = served
    said = []

    def answer(body):
        said.append(body["messages"][0]["content"][-1]["text"])
        if len(said) == 2:
            second.faults = ["cut"] * 100
        return recorded(body)

    class Stopped(Exception):
        pass

    class Stops(OverHttp):
        def ask(self, chunks, keep):
            kept = []

            def counting(chunk, rows):
                keep(chunk, rows)
                kept.append(chunk)
                if len(kept) >= 5:
                    raise Stopped

            super().ask(chunks, counting)

    with Fake(answer, listed(checkpoint), slow=0.02) as first, Fake(answer, listed(checkpoint), slow=0.02) as second:
        of = settings(first.url, second.url, batch=2)
        engine = Stops(checkpoint, of, PIXELS)
        engine.servers = [replace(server, pause=0.01) for server in engine.servers]
        with pytest.raises(Stopped):
            asked(engine, source, tmp_path / "work", of)
        kept = set(answers_in(tmp_path / "work"))
        first.faults = [401]
        with pytest.raises(ValueError, match=r"refuses: it answers 401 .*the same command goes on"):
            asked(OverHttp(checkpoint, settings(first.url, batch=1), PIXELS), source, tmp_path / "work", of)
        first.faults = [422]
        with pytest.raises(ValueError, match=r"^s id .*: tiny at .* refuses: it answers 422"):
            asked(OverHttp(checkpoint, settings(first.url, batch=1), PIXELS), source, tmp_path / "work", of)
        first.faults = [404]
        with pytest.raises(TransientError, match=r"refuses: it answers 404 .*the same command goes on"):
            asked(OverHttp(checkpoint, settings(first.url, batch=1), PIXELS), source, tmp_path / "work", of)
        before = len(said)
        engine = OverHttp(checkpoint, settings(first.url), PIXELS)
        rows = asked(engine, source, tmp_path / "work", of)
    assert len(kept) >= 5 and set(rows) == {sample.id for sample in source.samples}
    assert len(said) - before == QUESTIONS - len(kept)  # what was kept is not asked for again


def test_rows_wait_for_their_judge_side_by_side(served, tmp_path, monkeypatch):
    checkpoint, source = served
    samples = tuple(replace(one, task="math", reward="llm", solution="right") for one in source.samples)
    one = recorded({"messages": [{"content": [{"text": rec.prompt(samples[0])}]}]})
    source = replace(source, samples=samples)

    def answer(body):
        return one | {"prompt_token_ids": None, "usage": {}}

    with Fake(answer, listed(checkpoint)) as fake, Fake(lambda body: "1.0", {"j": "fake"}, slow=0.3) as judge:
        monkeypatch.setenv("VLMR1_JUDGE_URL", judge.url)
        monkeypatch.setenv("VLMR1_JUDGE_MODEL", "j")
        monkeypatch.setenv("VLMR1_JUDGE_CACHE", str(tmp_path / "judge"))
        of = settings(fake.url, batch=8)
        rows = asked(OverHttp(checkpoint, of, PIXELS), source, tmp_path / "work", of)
        assert judge.most > QUESTIONS // 2
    assert len(rows) == QUESTIONS


# The real one.


@pytest.fixture(scope="module")
def vllm(served, tmp_path_factory):
    python = os.environ.get("VLMR1_VLLM_PYTHON")
    if not python:
        pytest.skip("VLMR1_VLLM_PYTHON names no interpreter with vLLM")
    flags = ("--enforce-eager", "--max-num-seqs", "4")
    serving = Serving(
        served[0], port=free_port(), dtype="float32", max_length=1024, pictures=2, python=python, more=flags
    )
    with running(serving, tmp_path_factory.mktemp("vllm") / "log", 600, CPU) as server:
        yield server


@pytest.mark.vllm
def test_greedy_answers_over_vllm_equal_those_in_process(served, vllm, tmp_path):
    """Prompts token for token and answers word for word; recorded where that is wanted."""
    checkpoint, source = served
    family, answers = load_family(checkpoint, PIXELS), {}

    def forwarded(body):
        answer = httpx.post(f"{vllm.url}/chat/completions", json=body, timeout=60).json()
        kept = {key: answer[key] for key in ("prompt_token_ids", "usage")}
        kept["choices"] = [
            {key: choice[key] for key in ("index", "message", "token_ids", "finish_reason")}
            for choice in answer["choices"]
        ]
        answers[body["messages"][0]["content"][-1]["text"]] = kept
        return kept

    with Fake(forwarded, listed(checkpoint)) as between:
        of = settings(between.url)
        there = asked(OverHttp(checkpoint, of, PIXELS), source, tmp_path / "there", of)
    here = asked(InProcess(checkpoint, COMPUTE, PIXELS, 1, 24), source, tmp_path / "here", of)
    assert there == here and len(there) == QUESTIONS
    for text, sample in questions(source).items():
        assert answers[text]["prompt_token_ids"] == encode(family, source, sample).ids
    if os.environ.get("VLMR1_RECORD") == "1":
        write_json(RECORDED, {text: answers[text] for text in sorted(answers)})


@pytest.mark.vllm
def test_sampled_answers_over_vllm_are_the_same_again(served, vllm, tmp_path):
    checkpoint, source = served
    of = settings(vllm.url, temperature=1.0, samples=3)
    engine, found = OverHttp(checkpoint, of, PIXELS), []
    (chunk, *_) = [chunk for chunk in chunks_of([source], of.asking, 1) if chunk.way == "sampled"]
    for _ in range(2):
        engine.ask([chunk], lambda chunk, rows: found.append([row["completion"] for row in rows]))
    assert found[0] == found[1] and len(found[0]) == 3
