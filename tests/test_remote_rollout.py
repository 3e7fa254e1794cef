"""GRPO over servers: that what is trained on is what a server with the present weights sampled, whatever happens to it.

The servers here are `tests.little_vllm`, which answer by this project's own engine. The real one: test_vllm_rollouts.
"""

import shutil
import threading
import time
from dataclasses import replace

import pytest
import torch

from tests.conftest import ALL, COMPUTE
from tests.little_vllm import LittleVllm
from tests.test_training import GRPO, Killed, grpo
from vlmr1.errors import TransientError
from vlmr1.grpo import weights_out
from vlmr1.sample import Source
from vlmr1.settings import Correction, Lora, OverVllm, Training

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


@pytest.mark.parametrize(("weights", "what"), [("checkpoint", ALL), ("checkpoint", LORA), ("adapter", LORA)])
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
            "pause",
            "update_weight_version",
            "collective_rpc",
            "reset_prefix_cache",
            "update_weight_version",
            "resume",
        ]
        assert [path.partition("?")[0].strip("/") for path in told] == 2 * once
        assert server.told[1][1] == {"new_version": "broken"}
    else:
        load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
        assert told == [load, load, unload] and server.told[0][1]["lora_name"] == server.told[2][1]["lora_name"]
    assert list((tmp_path / "brought").iterdir()) == []  # nothing is left behind


def test_weights_that_were_not_brought_show_in_the_figures(place, tmp_path, monkeypatch):
    monkeypatch.setattr(LittleVllm, "_load", lambda self, folder, load=LittleVllm._load: load(self, self.base))
    with LittleVllm(*place) as server:
        rows = run(place, tmp_path / "w", over(server, path=str(tmp_path))).run()
    assert rows[0]["sampler/difference_max"] < 1e-4 and rows[-1]["sampler/difference_max"] > 1e-3
    assert rows[-1]["sampler/kl"] > 0


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


def test_a_dying_server_leaves_its_questions_to_the_others(place, tmp_path, caplog):
    with LittleVllm(*place) as first, LittleVllm(*place) as second:
        answer, seen = second.answer, []

        def dying(body):
            if "seed" in body:
                seen.append(body)
                threading.Thread(target=second.stop).start()
                second.faults = ["cut"] * 1_000
                time.sleep(0.3)
                return 500
            return answer(body)

        second.answer = dying
        trainer = run(place, tmp_path / "w", over(first, second, path=str(tmp_path)))
        rows = trainer.run()
    assert seen and len(asked(first)) >= 3 and rows[-1]["staleness"] == 0
    assert max(row["sampler/difference_max"] for row in rows) < 1e-4
    assert caplog.text.count("is left out until it comes back") == 1


def test_a_server_that_was_started_again_is_brought_the_weights_before_it_is_asked(place, tmp_path, caplog):
    """The only server dies in the second set; training waits; one without any of its weights comes up at its port."""
    with LittleVllm(*place) as first:
        answer, count, later = first.answer, [], []

        def dying(body):
            count.append("seed" in body)
            if sum(count) == 3:
                threading.Thread(target=restart).start()
                first.faults = ["cut"] * 1_000
                return 500
            return answer(body)

        def restart():
            first.stop()
            time.sleep(0.5)
            later.append(LittleVllm(*place, port=first.server_port).__enter__())

        first.answer = dying
        trainer = run(place, tmp_path / "w", over(first, path=str(tmp_path)))
        rows = trainer.run()
        later[0].stop()
    assert max(row["sampler/difference_max"] for row in rows) < 1e-4 and len(rows) == 4
    assert caplog.text.count("no server is left to sample from; waiting up to 5 s") == 1
    assert all(version != "default" for version, _ in later[0].by) and len(later[0].by) == 2


def test_nobody_to_ask_ends_the_run_for_another_start(place, tmp_path):
    with LittleVllm(*place) as server:
        rollout = over(server, path=str(tmp_path), patience=0.6)
    with pytest.raises(
        TransientError, match=r"http.* gives no answer: .*start one again, and the same command goes on"
    ):
        run(place, tmp_path / "w", rollout).run()


def test_answers_of_other_weights_are_counted_and_refused(place, tmp_path):
    """Somebody else gives the server weights in the middle of an answer, once, and then for good."""
    with LittleVllm(*place) as server:
        answer = server.answer

        def meddled(body):
            said = answer(body)
            if "seed" in body and len(asked(server)) == 2:
                server.version = "somebody.7."
            return said

        server.answer = meddled
        rows = run(place, tmp_path / "w", over(server, path=str(tmp_path))).run()
        assert [row["stale_refused"] for row in rows] == [1, 1, 0, 0] or rows[0]["stale_refused"] in (1, 2)
        assert max(row["sampler/difference_max"] for row in rows) < 1e-4

        def always(body):
            server.version = "somebody.8."
            return answer(body)

        server.answer = always
        with pytest.raises(
            (TransientError, ValueError), match=r"its answers are of other weights; mend or start it again"
        ):
            run(place, tmp_path / "x", over(server, path=str(tmp_path))).run()


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
def test_a_server_that_answers_another_question_is_refused(place, tmp_path, spoil, said):
    with LittleVllm(*place) as server:
        answer = server.answer
        server.answer = lambda body: spoil(answer(body)) if "seed" in body else answer(body)
        with pytest.raises(ValueError, match=said):
            run(place, tmp_path / "w", over(server, path=str(tmp_path))).run()


def test_a_server_started_otherwise_is_refused_before_anything_is_sampled(place, tmp_path):
    def raw(server):
        answer = server.answer
        content = {"content": [{"logprob": -3.2}]}
        server.answer = lambda body: answer(body) | {"choices": [{"message": {"content": ""}, "logprobs": content}]}

    for spoil, more, said in (
        (raw, {}, r"log-probs from before temperature and barred tokens; start it by vlmr1 serve .* --rollouts"),
        (lambda server: server.models.update({"base@0123456789ab": "vllm"}), {}, r"another base than .*; serve that"),
        (lambda server: setattr(server, "version", "abc.1."), {"weights": "adapter"}, r"holds weights of a run by"),
    ):
        with LittleVllm(*place) as server:
            spoil(server)
            what = LORA if more else ALL
            with pytest.raises(ValueError, match=said):
                run(place, tmp_path / "w", over(server, path=str(tmp_path / "b"), **more), what).run()
            assert not asked(server)
        shutil.rmtree(tmp_path / "w")


@pytest.mark.parametrize(
    ("rollout", "more", "said"),
    [
        ({"weights": "adapter"}, {}, r"grpo\.rollout\.weights: adapter needs trained\.lora"),
        ({"weights": "nccl"}, {}, r"path: .*nccl has none"),
        ({"path": None}, {}, r"path: the folder through which adapter and checkpoint go"),
        ({"overlap": True}, {}, r"max_staleness: overlap samples with weights of one set before"),
        ({"correction": {"level": "token", "cap": None}}, {}, r"cap: belongs to level token or sequence"),
        ({"correction": {"level": "off", "cap": 2.0}}, {}, r"cap: belongs to level token or sequence"),
        ({"correction": {"level": "sequence", "cap": 0.5}}, {}, r"cap: at least 1"),
        ({"servers": ("localhost:8000",)}, {}, r"'localhost:8000' is no address"),
        ({"servers": ("http://a/v1", "http://a/v1")}, {}, r"servers: one is named twice"),
        ({"engine": "in_process"}, {}, r"Extra inputs are not permitted"),
        (
            {"correction": {"level": "token", "cap": 2.0}},
            {"top_p": 0.9},
            r"rollout\.correction: with top_p the server's",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(rollout, more, said):
    given = over("http://a/v1").model_dump() | rollout
    with pytest.raises(ValueError, match=said):
        grpo_settings = GRPO.model_dump() | {"rollout": given} | more
        Training(compute=COMPUTE, trained=ALL, grpo=grpo_settings, max_pixels=112 * 112)


def test_in_process_is_what_null_is(place, tmp_path):
    given = GRPO.model_dump() | {"rollout": {"engine": "in_process"}}
    assert Training(compute=COMPUTE, trained=ALL, grpo=given, max_pixels=112 * 112).grpo.over_vllm is None


def test_nccl_asks_for_what_vllm_knows(place, tmp_path, monkeypatch):
    """The requests' order, and the group's places; the transport is a stand-in, for it needs devices."""
    from vlmr1.grpo.nccl_out import ByNccl

    calls = []

    class Nccl:
        def unique_id(self):
            return bytes(range(128))

        def init_rank(self, world, unique, rank):
            calls.append(("init", world, len(unique), rank))
            return "group"

        def all_reduce(self, tensors, comms):
            calls.append(("all_reduce", tensors[0].shape, comms))

        def broadcast(self, tensors, root, comms):
            calls.append(("broadcast", tensors[0].shape, tensors[0].dtype, root, comms))

    with pytest.raises(ValueError, match=r"nccl needs CUDA devices, and this is cpu"):
        run(place, tmp_path / "w", over("http://a/v1", weights="nccl", path=None))
    monkeypatch.setattr(
        "vlmr1.grpo.remote_rollout.weights_out", lambda trainer, settings: ByNccl(trainer, settings, Nccl())
    )
    with LittleVllm(*place) as first, LittleVllm(*place) as second:
        trainer = run(place, tmp_path / "w", over(first, second, weights="nccl", path=None))
        trainer.run()
        told = [(path.strip("/").partition("?")[0], body) for path, body in second.told]
    joined = dict(told)["init_weight_transfer_engine"]["init_info"]
    assert (joined["rank_offset"], joined["world_size"], joined["packed"]) == (3, 5, False)  # two workers each
    assert (
        dict((p.strip("/"), b) for p, b in first.told)["init_weight_transfer_engine"]["init_info"]["rank_offset"] == 1
    )
    sent = ["pause", "update_weight_version", "start_weight_update", "update_weights", "finish_weight_update"]
    sent += ["reset_mm_cache", "reset_encoder_cache", "reset_prefix_cache", "resume"]
    assert [path for path, _ in told] == [
        "shutdown_weight_transfer_engine",
        "init_weight_transfer_engine",
        *sent,
        *sent,
    ]
    about = dict(told)["update_weights"]["update_info"]
    state = trainer.family.load_model(place[0], torch.float32).state_dict()
    assert len(about["names"]) == len(state) and set(about["dtype_names"]) == {"float32"}
    assert "lm_head.weight" in about["names"] and "model.embed_tokens.weight" in about["names"]  # a checkpoint's names
    assert calls[:2] == [("init", 5, 128, 0), ("all_reduce", torch.Size([1]), ["group"])]
    assert [list(one[1]) for one in calls[2:]] == 2 * about["shapes"] and second.version == first.version


def test_the_present_weights_are_looked_for_at_every_server(place):
    assert weights_out.EVERY < 1  # seconds: a server that comes back is seen soon
