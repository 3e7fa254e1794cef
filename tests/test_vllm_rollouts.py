"""GRPO over the real vLLM: by checkpoint, by adapter, with the server killed on the way; and what it once answered.

`tests/recorded/rollouts.json` holds what vLLM for the CPU answered in the run by checkpoint, of the tests' tiny model
as it is built. The tests marked `vllm` start it (VLMR1_VLLM_PYTHON names its interpreter, `make test-vllm` makes one)
and record it anew where VLMR1_RECORD=1 is set.
"""

import json
import os
import signal
import threading
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest

from tests.conftest import ALL, ROOT, free_port
from tests.fake_server import Fake, FakeVllm
from tests.test_over_http import CPU
from tests.test_remote_rollout import LORA, over, run
from tests.test_training import GRPO
from vlmr1.files import write_json
from vlmr1.sample import Source
from vlmr1.serving.commands import Serving
from vlmr1.serving.launch import running

RECORDED = ROOT / "tests/recorded/rollouts.json"
LETTERS = {"tests.processes:last_letters": 1.0}  # which also a model that knows nothing can learn
SHORT = GRPO.model_copy(
    update={"steps": 6, "save_steps": 6, "prompts_per_step": 2, "max_completion_length": 12, "rewards": LETTERS}
)
NEAR = 1e-4  # nats: float32 in two programs


@pytest.fixture(scope="module")
def untrained(tiny):
    """(checkpoint, source): the tiny model as it is built, which is the same everywhere."""
    checkpoint, source = tiny
    samples = [replace(one, problem=f"{one.problem} {i}") for i, one in enumerate(source.samples[:8])]
    return checkpoint, Source("s", "train", source.images, tuple(samples))


def key(body):
    return f"{body['seed']} {body['messages'][0]['content'][-1]['text']}"


def test_recorded_answers_of_vllm_are_trained_on(untrained, tmp_path):
    """Token ids and log-probs as vLLM gave them; the first set's are the engine's own, whose model is the same."""
    answers = json.loads(RECORDED.read_text())
    with FakeVllm(lambda body: answers[key(body)], ["base"]) as fake:
        rows = run(untrained, tmp_path / "w", over(fake, path=str(tmp_path)), settings=SHORT).run()
    assert len(answers) == 6 and all(len(one["choices"]) == 3 for one in answers.values())
    assert len(rows) == 6 and 0 < rows[0]["sampler/difference_max"] < NEAR
    assert max(row["sampler/difference_max"] for row in rows) < 0.05  # trained here and there, by other kernels
    said = [json.loads(line) for line in (tmp_path / "w/rollouts.jsonl").read_text().splitlines()]
    texts = {choice["message"]["content"] for one in answers.values() for choice in one["choices"]}
    assert len(said) == 18 and {one["tokens"] for one in said} <= set(range(1, 13)) and texts


# The real one.


def serving(checkpoint, way):
    python = os.environ.get("VLMR1_VLLM_PYTHON")
    if not python:
        pytest.skip("VLMR1_VLLM_PYTHON names no interpreter with vLLM")
    flags = ("--enforce-eager", "--max-num-seqs", "8")
    return Serving(
        checkpoint,
        name="base",
        port=free_port(),
        dtype="float32",
        max_length=1024,
        pictures=2,
        python=python,
        more=flags,
        rollouts=way,
        rank=4 if way == "adapter" else None,
    )


@pytest.mark.vllm
def test_a_run_by_adapter(untrained, tmp_path):
    """Sets by weights that were brought: log-probs there and here, and the versions, nothing left behind."""
    with running(serving(untrained[0], "adapter"), tmp_path / "log", 900, CPU) as server:
        rollout = over(server, weights="adapter", path=str(tmp_path / "brought"), timeout=300.0, patience=60.0)
        rows = run(untrained, tmp_path / "w", rollout, LORA, SHORT).run()
        names = [one["id"] for one in httpx.get(f"{server.url}/models").json()["data"]]
    show("adapter", rows)
    check(rows)
    assert not any(name.startswith("base.") for name in names)  # the server has forgotten them all
    assert list((tmp_path / "brought").iterdir()) == []


class Between(Fake):
    """Hands everything on to a server, and keeps what it answered to questions."""

    def __init__(self, url, answers):
        super().__init__(self._forwarded, {"base": "vllm"})
        self.there, self.answers = url.removesuffix("/v1"), answers

    def _forwarded(self, body):
        answer = httpx.post(f"{self.there}/v1/chat/completions", json=body, timeout=300).json()
        if "seed" in body:
            self.answers[key(body)] = kept(answer)
        return answer

    def look(self, path):
        return httpx.get(f"{self.there}{path}", timeout=60).json()

    def tell(self, path, body):
        answer = httpx.post(f"{self.there}{path}", json=body, timeout=300)
        return answer.status_code, answer.json() if answer.content else {}


def kept(answer):
    """What of an answer is recorded."""
    choices = [
        {"index": one["index"], "message": {"content": one["message"]["content"]}, "token_ids": one["token_ids"]}
        | {"finish_reason": one["finish_reason"]}
        | {"logprobs": {"content": [{"logprob": token["logprob"]} for token in one["logprobs"]["content"]]}}
        for one in answer["choices"]
    ]
    usage = {"prompt_tokens": answer["usage"]["prompt_tokens"]}
    return {"prompt_token_ids": answer["prompt_token_ids"], "usage": usage, "choices": choices}


@pytest.mark.vllm
def test_a_run_by_checkpoint(untrained, tmp_path):
    answers = {}
    with (
        running(serving(untrained[0], "checkpoint"), tmp_path / "log", 900, CPU) as server,
        Between(server.url, answers) as between,
    ):
        rollout = over(between, path=str(tmp_path / "brought"), timeout=300.0, patience=60.0)
        rows = run(untrained, tmp_path / "w", rollout, ALL, SHORT).run()
    show("checkpoint", rows)
    check(rows)
    assert {row["stale_refused"] for row in rows} == {row["staleness"] for row in rows} == {0.0}
    if os.environ.get("VLMR1_RECORD") == "1":
        write_json(RECORDED, {name: answers[name] for name in sorted(answers)})


@pytest.mark.vllm
def test_a_server_killed_in_a_set_is_brought_the_weights_again(untrained, tmp_path, caplog):
    """Killed in the second set with a question under way; started again, it has the base's weights until told."""
    of, killed = serving(untrained[0], "checkpoint"), []
    with ExitStack() as stack:
        server = stack.enter_context(running(of, tmp_path / "log", 900, CPU))
        rollout = over(server, path=str(tmp_path / "brought"), timeout=300.0, patience=900.0)
        trainer = run(untrained, tmp_path / "w", rollout, ALL, SHORT)
        plain = trainer.remote._requests

        def dying(number, left):
            for place, request in enumerate(plain(number, left)):
                if number == 1 and place == 1 and not killed:
                    os.killpg(server.process.pid, signal.SIGKILL)
                    server.process.wait()
                    killed.append(threading.Thread(target=start))
                    killed[0].start()
                yield request

        def start():
            stack.enter_context(running(of, tmp_path / "log2", 900, CPU))

        trainer.remote._requests = dying
        rows = trainer.run()
        killed[0].join()
    show("checkpoint, killed", rows)
    assert caplog.text.count("no server is left to sample from; waiting up to 900 s") == 1
    assert "is back, with the present weights" in caplog.text
    check(rows)


def check(rows):
    """Three sets, of which every token's log-prob there is the one here, though the weights moved in between."""
    assert len(rows) == 6 and max(row["sampler/difference_max"] for row in rows) < NEAR
    assert all(row["grad_norm"] > 0 for row in rows) and rows[-1]["kl"] > 100 * NEAR


def show(name, rows):
    """The figures that docs/serving.md shows; `pytest -s` prints them."""
    means = [sum(row[f"sampler/{figure}"] for row in rows) / len(rows) for figure in ("difference", "kl")]
    largest = max(row["sampler/difference_max"] for row in rows)
    print(f"\n{name}: difference of log-probs {largest:.1e} at most, {means[0]:.1e} in the mean; kl {means[1]:.1e}")
