# ruff: noqa: F401, F811 (the fixtures of test_remote_rollout)
"""Rollouts over servers that fail, refuse or answer nonsense: each is left out, asked again or named, and nothing more.

One trainer that never steps, with answers that are always the same (as in test_remote_rollout).
"""

import threading
import time
from dataclasses import replace

import pytest

from tests.fake_server import Failing, FakeVllm
from tests.test_remote_rollout import LORA, asked, canned, over, place, remote, sample, trainer
from tests.test_training import grpo
from vlmr1.errors import TransientError
from vlmr1.grpo.folder_out import ByAdapter
from vlmr1.grpo.remote_rollout import RemoteRollout

STEPS = ("/pause?mode=abort", "/update_weight_version", "/collective_rpc", "/reset_prefix_cache", "/resume")


@pytest.mark.parametrize("how", [500, 503, 404, 429, "cut"])
def test_a_server_that_fails_as_it_takes_weights_is_left_out_until_it_does_not(trainer, canned, how):
    for step in STEPS:
        with FakeVllm(canned, ["base"]) as sound, Failing(canned, ["base"]) as failing:
            rollout = remote(trainer, sound, failing)
            rollout.weights.number = 0
            rollout.weights.leave()
            failing.at, failing.how = step, how
            assert [one.url for one in rollout.weights.ready()] == [sound.url], step
            failing.at = ""
            assert len(rollout.weights.ready()) == 2
            rollout.weights.close()


def test_a_server_that_hangs_is_waited_for_once(trainer, canned, monkeypatch):
    monkeypatch.setattr("vlmr1.grpo.weights_out.GRACE", 0.05)
    with FakeVllm(canned, ["base"]) as sound, FakeVllm(canned, ["base"]) as hung:
        rollout = remote(trainer, sound, hung, timeout=0.4)
        hung.tell = lambda path, body: mended.wait() and FakeVllm.tell(hung, path, body)  # its engine, not its routes
        mended, took = threading.Event(), []
        for _ in range(3):
            start = time.monotonic()
            assert len(sample(rollout)) == 4 and not asked(hung)
            took.append(time.monotonic() - start)
        assert took[0] > 0.4 > max(took[1:])
        mended.set()
        while len(rollout.weights.ready()) < 2:  # it is back by itself
            time.sleep(0.01)
        assert hung.version.startswith(f"{rollout.weights.run}.0.")


@pytest.mark.parametrize(
    ("weights", "step", "how"), [("checkpoint", "/collective_rpc", 500), ("adapter", "/v1/load_lora_adapter", 404)]
)
def test_a_folder_that_no_server_sees_is_named_at_once(place, trainer, canned, tmp_path, weights, step, how):
    """From the first; where servers did see it, they are waited for."""
    with Failing(canned, ["base"]) as server:
        server.at, server.how = step, how
        of = trainer if weights == "checkpoint" else grpo(place, tmp_path / "w", what=LORA)
        rollout = remote(of, server, weights=weights, patience=0.1)
        with pytest.raises(ValueError, match=r"does it see .*/brought/.* \(grpo\.rollout\.path\)\?$"):
            sample(rollout)
        server.at = ""
        sample(rollout)
        server.at = step
        with pytest.raises(TransientError, match=r"does it see .* \(grpo\.rollout\.path\)\?; start one again"):
            rollout.weights.bring(1)


@pytest.mark.parametrize("odd", [{"odd": 1}, "no JSON", []])
def test_what_a_server_says_of_itself_and_cannot_be_read_leaves_it_out(trainer, canned, odd):
    with FakeVllm(canned, ["base"]) as sound, FakeVllm(canned, ["base"]) as failing:
        failing.look = lambda path: odd
        assert len(sample(remote(trainer, sound, failing))) == 4 and not asked(failing)


def test_a_refused_question_names_its_row_and_is_not_asked_again(trainer, canned):
    with (
        FakeVllm(lambda body: 400, ["base"]) as server,
        pytest.raises(ValueError, match=r"^s id .*: base at .* answers 400 .*row$"),
    ):
        sample(remote(trainer, server), (0,))
    assert len(asked(server)) == 1
    with FakeVllm(lambda body: 401, ["base"]) as server, pytest.raises(ValueError, match="it answers 401"):
        sample(remote(trainer, server), (0,))


def test_a_server_whose_model_is_gone_is_looked_at_again(trainer, canned):
    with FakeVllm(canned, ["base"]) as sound, FakeVllm(canned, ["base"]) as other:
        rollout = remote(trainer, sound, other)
        sample(rollout)
        other.models = {"another": "vllm"}
        assert len(sample(rollout)) == 4 and other.url not in rollout.weights.looked_at
        before = len(asked(other))
        assert len(sample(rollout)) == 4 and len(asked(other)) == before
        assert "serves another, not base; set grpo.rollout.model" in str(rollout.weights.lost[other.url])


def test_an_answer_broken_off_before_its_first_token_is_asked_again(trainer, canned):
    def aborted(body):
        answer = canned(body)
        if len(asked(server)) == 2:
            none = {"token_ids": [], "logprobs": None, "finish_reason": "abort"}
            answer["choices"] = [one | none for one in answer["choices"]]
        return answer

    with FakeVllm(aborted, ["base"]) as server:
        rollout = remote(trainer, server)
        rollout.weights.servers = [replace(one, at_once=1) for one in rollout.weights.servers]
        assert len(sample(rollout)) == 4 and rollout.refused_of_set == 1 and len(asked(server)) == 5


def test_completions_that_end_too_early_are_no_stale_ones_and_name_their_row(trainer, canned):
    def cut(body):
        answer = canned(body)
        short = {"token_ids": [30], "logprobs": {"content": [{"logprob": -1.0}]}, "finish_reason": "length"}
        return answer | {"choices": [one | short for one in answer["choices"]]}

    with FakeVllm(cut, ["base"]) as server:
        rollout = remote(trainer, server)
        with pytest.raises(ValueError, match=r"^s id \d+: its completions end before .*vlmr1 serve --max-length"):
            sample(rollout, (0,))
        assert rollout.refused == 0 and len(asked(server)) == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda one: one | {"token_ids": [10**9, *one["token_ids"][1:]]}, r"token 1000000000, and the policy knows"),
        (lambda one: one | {"token_ids": [-1, *one["token_ids"][1:]]}, r"token -1, and the policy knows"),
        *(
            (lambda one, of=of: one | {"logprobs": {"content": [{"logprob": of}] * 4}}, r"which nothing sampled has")
            for of in (float("nan"), float("-inf"), -9999.0, 0.5)
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_their_row(trainer, canned, spoil, said):
    def answer(body):
        right = canned(body)
        return right | {"choices": [spoil(one) for one in right["choices"]]}

    with FakeVllm(answer, ["base"]) as server, pytest.raises(ValueError, match=rf"^s id \d+: .*{said}"):
        sample(remote(trainer, server))


def test_a_server_that_does_not_say_what_it_read_is_refused(trainer, canned):
    def silent(body):
        return {key: value for key, value in canned(body).items() if key == "choices"}

    with FakeVllm(silent, ["base"]) as server, pytest.raises(ValueError, match="does not give the prompt's token ids"):
        sample(remote(trainer, server))


# Asked ahead, and the server dies.


def ahead_of(trainer, server, following=(2, 3), **more):
    rollout = remote(trainer, server, overlap=True, max_staleness=1, **more)
    following = [{"items": [(index, trainer.encode(index))]} for index in following]
    fetched = iter([[{"items": [(0, trainer.encode(0)), (1, trainer.encode(1))]}], [{"items": []}], following, []])
    rollout.batches(lambda: next(fetched))
    return rollout


def test_neither_a_checkpoint_nor_the_end_waits_for_a_server_that_is_gone(trainer, canned, tmp_path, monkeypatch):
    def dying(body):
        return canned(body) if len(asked(server)) <= 3 else 503

    with FakeVllm(dying, ["base"]) as server:
        rollout = ahead_of(trainer, server, patience=60.0)
        rollout.weights.servers = [replace(one, at_once=1) for one in rollout.weights.servers]
        sample(rollout, (0, 1))
        while len(asked(server)) < 4:
            time.sleep(0.01)
        server.stop()
        start = time.monotonic()
        rollout.save(tmp_path)
        assert list(rollout.ahead[1]) == [2] and time.monotonic() - start < 5  # what was answered is kept
    with FakeVllm(canned, ["base"], port=server.server_port) as back:
        monkeypatch.setattr(trainer.state, "global_step", 2)
        groups = sample(rollout, (2, 3))
        assert len(asked(back)) == 1 and [group.number for group in groups] == [0, 1]
    with FakeVllm(canned, ["base"]) as server:
        monkeypatch.setattr(trainer.state, "global_step", 0)
        rollout = ahead_of(trainer, server, patience=60.0)
        server.asked = lambda body: canned(body) if len(asked(server)) <= 2 else 503
        sample(rollout, (0, 1))
        server.stop()
        start = time.monotonic()
        rollout.on_train_end(None, None, None)
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("stopped", [False, True])
def test_only_a_checkpoint_after_sigterm_does_not_wait_for_all_of_the_next_set(
    trainer, canned, tmp_path, monkeypatch, stopped
):
    with FakeVllm(canned, ["base"], slow=0.05) as server:
        rollout = ahead_of(trainer, server, following=(2, 3, 4, 5, 6, 7))
        rollout.weights.servers = [replace(one, at_once=1) for one in rollout.weights.servers]
        sample(rollout, (0, 1))
        while len(asked(server)) < 3:
            time.sleep(0.01)
        monkeypatch.setattr(trainer.stops, "asked", stopped)
        rollout.save(tmp_path)
        monkeypatch.setattr(trainer.stops, "asked", False)
        had = list(rollout.ahead[1])
        assert had == list(range(2, 2 + len(had))) and (0 < len(had) < 5 if stopped else len(had) == 6)
        again = remote(trainer, server, max_staleness=1)
        again.load(tmp_path)
        monkeypatch.setattr(trainer.state, "global_step", 2)
        groups = sample(again, (2, 3, 4, 5, 6, 7))
        assert [group.number for group in groups] == len(had) * [0] + (6 - len(had)) * [1]


def test_somebody_who_waits_for_servers_stops_when_hurried(trainer, canned):
    with FakeVllm(canned, ["base"]) as gone:
        rollout = remote(trainer, gone, patience=60.0)
    hurried = threading.Event()
    threading.Timer(0.1, hurried.set).start()
    with pytest.raises(TransientError, match="start one again"):
        rollout.weights.ready(hurried)


def test_sigterm_ends_a_run_that_waits_for_servers(trainer, canned, monkeypatch, capsys):
    with FakeVllm(canned, ["base"]) as gone:
        rollout = remote(trainer, gone, patience=60.0)
    monkeypatch.setattr(trainer.stops, "asked", True)
    with pytest.raises(SystemExit) as ended:
        sample(rollout)
    assert ended.value.code == 143 and "as it waited for a server; the same command goes on" in capsys.readouterr().out


# Two runs, one folder.


def test_runs_of_one_name_on_two_machines_keep_their_weights_apart(place, trainer, canned, tmp_path):
    """Work folders of one path on two machines: what tells them apart lies in each."""
    other = grpo(place, tmp_path / trainer.work.name)
    with FakeVllm(canned, ["base"]) as server:
        shared = over(server, path=str(tmp_path / "shared"))
        first = RemoteRollout(trainer, shared)
        sample(first, (0,))
        second = RemoteRollout(other, shared)
        assert first.weights.folder.is_dir() and first.weights.home != second.weights.home
        second.weights.close()
        assert first.weights.folder.is_dir()
        again = RemoteRollout(trainer, shared)  # the same run, after a kill
        assert not first.weights.folder.exists() and again.weights.home == first.weights.home
        sample(again, (0,))
        with pytest.raises(ZeroDivisionError):  # whatever ends a training, nothing is left there
            trainer.remote, trainer.train = again, lambda **_: 1 // 0
            trainer.run()
        trainer.remote = None
        del trainer.train
    assert list((tmp_path / "shared").iterdir()) == []


def test_adapters_of_an_earlier_start_are_forgotten_by_the_server(place, tmp_path):
    with FakeVllm(None, ["base"]) as server:
        trainer = grpo(place, tmp_path / "w", what=LORA)
        settings = over(server, weights="adapter", path=str(tmp_path / "shared"))
        for _ in range(2):  # the second start after a kill
            way = ByAdapter(trainer, settings)
            way.bring(0)
            assert len(server.models) == 2 and way.name in server.models
        way.close()
    assert list(server.models) == ["base"]
