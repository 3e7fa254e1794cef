"""GRPO over servers: that what is trained on is what a server with the present weights sampled, whatever happens to it.

A whole run asks `tests.little_vllm`, which answers by this project's own engine; what may befall servers is tried on
one trainer that never steps, with answers that are always the same. The real one: test_vllm_rollouts.
"""

import threading
import time
from dataclasses import replace

import pytest
import torch

from tests.conftest import ALL
from tests.fake_server import FakeVllm
from tests.little_vllm import LittleVllm
from tests.test_training import GRPO, Killed, grpo
from vlmr1.errors import TransientError
from vlmr1.grpo.remote_rollout import RemoteRollout
from vlmr1.sample import Source
from vlmr1.settings import Correction, Lora, OverVllm
from vlmr1.tasks import TASKS

OFF = Correction(level="off", cap=None)
LORA = ALL.model_copy(update={"lora": Lora(r=4, alpha=8.0, dropout=0.0, target_modules="all-linear", vision=False)})
SMALL = GRPO.model_copy(update={"steps": 4, "save_steps": 4, "prompts_per_step": 2})


@pytest.fixture(scope="module")
def place(trained):
    """(checkpoint, source): samples whose questions differ, so that a server can tell them apart."""
    checkpoint, source = trained
    samples = [replace(one, problem=f"{one.problem} {i}") for i, one in enumerate(source.samples[:8])]
    return checkpoint, Source("s", "train", source.images, tuple(samples))


def over(*servers, weights="checkpoint", path="weights", **more):
    urls = tuple(one if isinstance(one, str) else one.url for one in servers)
    own = {"max_staleness": 0, "correction": OFF, "overlap": False, "timeout": 20.0, "patience": 5.0}
    return OverVllm(engine="vllm", servers=urls, model="base", weights=weights, path=path, **own | more)


def run(place, work, rollout, what=ALL, settings=SMALL, **more):
    return grpo(place, work, settings=settings.model_copy(update={"rollout": rollout}), what=what, **more)


def asked(server):
    """The questions it was asked, without those by which a server is looked at."""
    return [body for body in server.requests if "seed" in body]


WAYS = [
    ("checkpoint", ALL),
    pytest.param("checkpoint", LORA, marks=pytest.mark.slow),
    pytest.param("adapter", LORA, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("weights", "what"), WAYS)
def test_every_set_is_sampled_with_the_present_weights(place, tmp_path, weights, what):
    with LittleVllm(*place) as server:
        trainer = run(place, tmp_path / "w", over(server, weights=weights, path=str(tmp_path / "brought")), what)
        rows = trainer.run()
    assert [row["staleness"] for row in rows] == [0.0] * 4 and not any(row["stale_refused"] for row in rows)
    assert max(row["sampler/difference_max"] for row in rows) < 1e-4 and rows[0]["sampler/ratio"] == pytest.approx(1)
    assert len({version for version, _ in server.by}) == 2 and len(asked(server)) == 4  # two sets of two prompts
    body = asked(server)[0]
    assert body["n"] == 3 and body["logprobs"] and body["return_token_ids"] and body["max_tokens"] == 24
    assert body["stop_token_ids"] == trainer.family.end_ids and len({one["seed"] for one in asked(server)}) == 4
    assert set(body["logit_bias"]) == {str(token) for token in trainer.family.never_sampled}
    told = [path for path, _ in server.told]
    if weights == "checkpoint":
        once = [
            "update_weight_version",
            "pause",
            "collective_rpc",
            "reset_prefix_cache",
            "update_weight_version",
            "resume",
        ]
        assert [path.partition("?")[0].strip("/") for path in told] == 2 * once
        assert server.told[0][1] == {"new_version": "broken"}
    else:
        load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
        names = [body["lora_name"] for _, body in server.told]
        assert told == [load, load, unload, unload] and names[2:] == names[:2]
    assert list((tmp_path / "brought").iterdir()) == []  # nothing is left behind


@pytest.mark.slow
def test_weights_that_were_not_brought_show_in_the_figures(place, tmp_path, monkeypatch):
    monkeypatch.setattr(LittleVllm, "_load", lambda self, folder, load=LittleVllm._load: load(self, self.base))
    with LittleVllm(*place) as server:
        rows = run(place, tmp_path / "w", over(server, path=str(tmp_path))).run()
    assert rows[0]["sampler/difference_max"] < 1e-4 and rows[-1]["sampler/difference_max"] > 1e-3
    assert rows[-1]["sampler/kl"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [False, True])
def test_a_killed_run_goes_on_to_the_very_same(place, tmp_path, overlap):
    with LittleVllm(*place) as server:
        settings = SMALL.model_copy(update={"steps": 6, "save_steps": 3})
        more = {"path": str(tmp_path), "overlap": overlap, "max_staleness": int(overlap)}
        more["correction"] = Correction(level="token", cap=2.0)
        whole = run(place, tmp_path / "whole", over(server, **more), settings=settings)
        rows = whole.run()
        with pytest.raises(Killed):
            run(place, tmp_path / "cut", over(server, **more), settings=settings, die_at=4).run()
        resumed = run(place, tmp_path / "cut", over(server, **more), settings=settings)
        assert resumed.run() == rows
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [row["staleness"] for row in rows] == ([0, 0, 1, 1, 1, 1] if overlap else [0] * 6)
    assert (rows[-1]["sampler/difference_max"] > 1e-3) == overlap  # weights of one set before


# One trainer that stands at its first step, and servers that befalls what may.


@pytest.fixture(scope="module")
def trainer(place, tmp_path_factory):
    return grpo(place, tmp_path_factory.mktemp("standing"), settings=SMALL)


@pytest.fixture
def canned(trainer):
    """Answers that are always the same: three tokens and the end, at one nat each."""
    prompts = {TASKS[one.task].prompt(one): i for i, (_, one) in enumerate(trainer.prompts.items)}
    tokens = [30, 31, 32, trainer.family.end_ids[0]]

    def answer(body):
        ids = trainer.encode(prompts[body["messages"][0]["content"][-1]["text"]]).ids
        said = {"message": {"content": ""}, "token_ids": tokens, "finish_reason": "stop"}
        said["logprobs"] = {"content": [{"logprob": -1.0}] * len(tokens)}
        choices = [said | {"index": i} for i in range(body["n"])]
        return {"prompt_token_ids": ids, "usage": {"prompt_tokens": len(ids)}, "choices": choices}

    return answer


def remote(trainer, *servers, **more):
    """The rollouts of a trainer over servers, which are given up at once."""
    made = RemoteRollout(trainer, over(*servers, path=str(trainer.work / "brought"), **more))
    made.weights.servers = [replace(one, tries=1, pause=0.01) for one in made.weights.servers]
    return made


def sample(rollout, items=(0, 1, 2, 3)):
    return rollout.sample({index: rollout.trainer.encode(index) for index in items})


def test_a_dying_server_leaves_its_questions_to_the_others(trainer, canned, caplog):
    with FakeVllm(canned, ["base"], slow=0.02) as first, FakeVllm(canned, ["base"], slow=0.02) as second:
        rollout = remote(trainer, first, second)
        assert len(sample(rollout)) == 4 and asked(first) and asked(second)  # both have a part
        second.faults = [503, *["cut"] * 100]
        threading.Timer(0.01, second.stop).start()
        found = sample(rollout)
        rest = len(asked(first))
        assert [group.tokens for group in found] == 4 * [3 * [[30, 31, 32, trainer.family.end_ids[0]]]]
        assert len(sample(rollout)) == 4 and len(asked(first)) == rest + 4
    assert caplog.text.count("is left out until it comes back") == 1 and rollout.refused_of_set == 0


def test_a_server_that_was_started_again_is_brought_the_weights_before_it_is_asked(trainer, canned, caplog):
    """The only server dies in the middle of a set; one without any of its weights comes up at its port."""
    later = []

    def dying(body):
        if len(asked(first)) < 3:
            return canned(body)
        first.faults = ["cut"] * 100
        threading.Thread(target=restart).start()
        return 500

    def restart():
        first.stop()
        time.sleep(0.3)
        later.append(FakeVllm(canned, ["base"], port=first.server_port).__enter__())

    with FakeVllm(dying, ["base"]) as first:
        rollout = remote(trainer, first)
        rollout.weights.servers = [replace(one, at_once=1) for one in rollout.weights.servers]
        assert len(sample(rollout)) == 4 and rollout.refused_of_set == 0
        told = [path for path, _ in later[0].told]
        assert told.index("/collective_rpc") < told.index("/resume") and len(asked(later[0])) == 2
        assert later[0].version.startswith(f"{rollout.weights.run}.0.") and later[0].version != first.version
        later[0].stop()
    assert caplog.text.count("no server is left to sample from; waiting up to 5 s") == 1
    assert "is back, with the present weights" in caplog.text


def test_nobody_to_ask_ends_the_run_for_another_start(trainer, canned):
    with FakeVllm(canned, ["base"]) as gone:
        rollout = remote(trainer, gone, patience=0.2)
    with pytest.raises(TransientError, match=r"http.* gives no answer: .*start one again, and the same command goes"):
        sample(rollout)


def test_answers_of_other_weights_are_counted_and_refused(trainer, canned):
    """Somebody else gives the server weights in the middle of an answer: once, and then again and again."""

    def meddled(body):
        if len(asked(server)) in when:
            server.version = f"somebody.{len(server.requests)}."
        return canned(body)

    with FakeVllm(meddled, ["base"]) as server:
        rollout = remote(trainer, server)
        rollout.weights.servers = [replace(one, at_once=1) for one in rollout.weights.servers]
        when = [4]
        groups = sample(rollout)
        assert rollout.refused_of_set == 1 and len(asked(server)) == 5
        assert rollout.figures(groups) == {"staleness": 0.0, "stale_refused": 1.0}
        when = range(1_000)
        with pytest.raises(TransientError, match=r"its answers are of other weights, or broken off; mend or start"):
            sample(rollout)


@pytest.mark.parametrize("staleness", [0, 1])
def test_what_was_answered_ahead_is_used_within_the_limit(trainer, canned, tmp_path, monkeypatch, caplog, staleness):
    """Kept in a checkpoint, read by a run that begins there; beyond the limit it is refused and asked again."""
    with FakeVllm(canned, ["base"]) as server:
        first = remote(trainer, server, overlap=True, max_staleness=1)
        ahead = [{"items": [(index, trainer.encode(index))]} for index in (2, 3)]
        fetched = iter([[{"items": [(0, trainer.encode(0)), (1, trainer.encode(1))]}], [{"items": []}], ahead, []])
        batches = first.batches(lambda: next(fetched))
        assert [index for batch in batches for index, _ in batch["items"]] == [0, 1]
        sample(first, (0, 1))
        first.save(tmp_path)
        assert len(asked(server)) == 4  # two of them for the set to come
        assert "not all of the next set" not in caplog.text
        monkeypatch.setattr(trainer.state, "global_step", 2)
        again = remote(trainer, server, max_staleness=staleness)
        again.load(tmp_path)
        groups = sample(again, (2, 3))
        refused = 0.0 if staleness else 2.0
        assert again.figures(groups) == {"staleness": float(staleness), "stale_refused": refused}
        assert len(asked(server)) == 4 + refused


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda answer: answer | {"prompt_token_ids": [7]}, r"s id \d+: the server reads a prompt .* not training's"),
        (lambda answer: answer | {"choices": answer["choices"][:1]}, r"no token ids with log-probs of 3 completions"),
        (
            lambda answer: answer | {"choices": [one | {"logprobs": None} for one in answer["choices"]]},
            r"no token ids with log-probs",
        ),
    ],
)
def test_a_server_that_answers_another_question_is_refused(trainer, canned, spoil, said):
    with FakeVllm(lambda body: spoil(canned(body)), ["base"]) as server, pytest.raises(ValueError, match=said):
        sample(remote(trainer, server))


def test_a_server_started_otherwise_is_refused_before_anything_is_sampled(trainer, canned):
    def raw(server):
        said = {"message": {"content": ""}, "logprobs": {"content": [{"logprob": -3.2}]}}
        server.answer = lambda body: {"choices": [said]}

    for spoil, said in (
        (raw, r"log-probs from before temperature and barred tokens; start it by vlmr1 serve .* --rollouts"),
        (
            lambda server: server.models.update({"base@0123456789ab": "vllm"}),
            r"another base than .*; stop it, and `vlmr1 serve .* --name base --port [0-9]+ --rollouts",
        ),
        (
            lambda server: server.models.update({"other": server.models.pop("base")}),
            r"serves other, not base; set grpo",
        ),
    ):
        with FakeVllm(canned, ["base"]) as server:
            spoil(server)
            with pytest.raises(ValueError, match=said):
                sample(remote(trainer, server))
            assert not asked(server)
            assert not server.told or spoil is raw  # which only weights of ours can show


@pytest.mark.slow
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("loss", "clip"), [("gspo", {"epsilon": 0.2}), ("cispo", {"epsilon_high": 5.0})])
def test_every_loss_takes_the_correction_over_several_steps_a_set(place, tmp_path, loss, clip, level):
    """Weights of the ratio to the server's log-probs, which is 1 here: the run is the uncorrected one."""
    clip = {"num_iterations": 2, "loss_type": loss, "epsilon": None, "epsilon_high": None} | clip
    settings, found = SMALL.model_copy(update=clip), {}
    for name, correction in (("off", OFF), (level, Correction(level=level, cap=3.0))):
        with LittleVllm(*place) as server:
            rollout = over(server, path=str(tmp_path), correction=correction)
            found[name] = run(place, tmp_path / name, rollout, settings=settings).run()
    for plain, weighted in zip(found["off"], found[level], strict=True):
        assert weighted["loss"] == pytest.approx(plain["loss"], abs=1e-4) and weighted["sampler/cut_share"] == 0
        assert weighted["sampler/ratio"] == pytest.approx(1, abs=1e-3)
