"""Training by its two trainers: it learns, it resumes to the same bytes, it stops on nonsense."""

import json

import pytest
import torch

from tests.conftest import ALL, COMPUTE
from vlmr1.grpo.trainer import GrpoTrainer
from vlmr1.settings import Grpo, Optimisation, Training
from vlmr1.sft import SftTrainer
from vlmr1.training import WHOLE, last_whole_checkpoint
from vlmr1.work import fingerprint_of, open_work

COMMON = {
    "lr_scheduler_type": "linear",
    "decay_share": None,
    "warmup_steps": 1,
    "weight_decay": 0.0,
    "adam_beta2": 0.99,
    "max_grad_norm": 1.0,
}
GRPO = Grpo(
    **COMMON,
    seed=1,
    learning_rate=2e-3,
    save_steps=4,
    steps=8,
    prompts_per_step=4,
    num_generations=3,
    num_iterations=2,
    loss_type="grpo",
    scale_rewards="group",
    epsilon=0.2,
    epsilon_high=None,
    delta=None,
    beta=0.04,
    use_bias_correction_kl=False,
    sync_ref_model=None,
    temperature=1.0,
    top_p=None,
    top_k=None,
    min_p=None,
    repetition_penalty=None,
    max_prompt_length=None,
    max_completion_length=24,
    mask_truncated_completions=False,
    rewards={"accuracy": 1.0, "format": 0.5},
    share_prefix=True,
    rollout=None,
    holdout=None,
    log_rollouts=True,
)


class Killed(Exception):
    pass


def grpo(trained, work, die_at=None, settings=GRPO, compute=COMPUTE, what=ALL, about=None):
    checkpoint, source = trained
    chosen = Training(compute=compute, trained=what, grpo=settings, max_pixels=112 * 112)
    trainer = GrpoTrainer(checkpoint, [source], chosen, open_work(work, lambda: about or {}))
    if die_at is not None:
        loss = trainer.compute_loss

        def dying(*args, **kwargs):
            if trainer.state.global_step == die_at:
                raise Killed
            return loss(*args, **kwargs)

        trainer.compute_loss = dying
    return trainer


def test_grpo_resumes_to_the_very_same_weights_rows_and_rollouts(trained, tmp_path):
    whole = grpo(trained, tmp_path / "whole")
    rows = whole.run()
    with pytest.raises(Killed):
        grpo(trained, tmp_path / "cut", die_at=6).run()
    resumed = grpo(trained, tmp_path / "cut")
    assert resumed.run() == rows
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for name in ("rollouts.jsonl", "questions.jsonl", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert len(rows) == 8 and len((tmp_path / "cut/rollouts.jsonl").read_text().splitlines()) == 4 * 4 * 3


def test_a_run_killed_after_its_last_checkpoint_keeps_the_trained_weights(trained, tmp_path):
    first = grpo(trained, tmp_path)
    first.run()
    again = grpo(trained, tmp_path)
    again.run()
    for (name, a), b in zip(first.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_grpo_logs_what_is_worth_watching(trained, tmp_path):
    rows = grpo(trained, tmp_path).run()
    wanted = {
        "reward",
        "reward_std",
        "rewards/accuracy",
        "rewards/format",
        "completion_length",
        "parse_failure_rate",
        "zero_variance_share",
        "kl",
        "clip_low_share",
        "clip_high_share",
        "entropy",
        "truncated_share",
    }
    assert wanted <= set(rows[0])
    assert rows[0]["kl"] == 0.0 and rows[-1]["kl"] > 0  # the first step is the reference itself
    assert rows[0]["clip_low_share"] == 0.0 and 0 <= rows[1]["clip_low_share"] <= 1
    assert rows[0]["entropy"] > 0 and rows[0]["reward"] > 0
    rollout = json.loads((tmp_path / "rollouts.jsonl").read_text().splitlines()[0])
    judged = {"reward", "advantage", "judged", "rewards", "boxes", "labels", "problems"}
    asked = {"step", "item", "number", "source", "id", "input_size", "completion", "tokens", "truncated"}
    assert set(rollout) == asked | judged
    assert set(rollout["rewards"]["accuracy"]) == {"value", "parsed", "reason"}


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(trained, tmp_path):
    grpo(trained, tmp_path).run()
    (tmp_path / "checkpoint-8" / WHOLE).unlink()
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-4"
    assert not (tmp_path / "checkpoint-8").exists()


def test_another_runs_work_is_cleared(tmp_path, monkeypatch):
    work = open_work(tmp_path / "w", lambda: {"lr": 1})
    (work / "checkpoint-4").mkdir()
    assert (open_work(work, lambda: {"lr": 1}) / "checkpoint-4").exists()
    assert not (open_work(work, lambda: {"lr": 2}) / "checkpoint-4").exists()

    (work / "checkpoint-4").mkdir()
    other = tmp_path / "code"
    other.mkdir()
    (other / "losses.py").write_text("# another loss")
    monkeypatch.setattr("vlmr1.work.PACKAGE", other)
    assert not (open_work(work, lambda: {"lr": 2}) / "checkpoint-4").exists()  # the same params, other code


def test_supervised_training_lowers_the_loss(tiny, tmp_path):
    checkpoint, source = tiny
    settings = Optimisation(**COMMON, learning_rate=3e-3, save_steps=30)
    trainer = SftTrainer(
        checkpoint, [source], settings, ALL, COMPUTE, open_work(tmp_path / "w", lambda: {}),
        max_pixels=112 * 112, seed=1, batch=8, steps=30,
    )  # fmt: skip
    rows = trainer.run()
    assert rows[0]["loss"] > 5 and rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    for name in ("one", "two"):
        trainer.save_policy(tmp_path / name)
    assert fingerprint_of(tmp_path / "one") == fingerprint_of(tmp_path / "two")


def test_a_loss_that_is_no_number_stops_the_run(trained, tmp_path):
    trainer = grpo(trained, tmp_path)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        trainer.run()


def test_bfloat16_is_the_arithmetic_and_not_the_weights(trained, tmp_path):
    settings = GRPO.model_copy(update={"steps": 2, "save_steps": 2, "beta": 0.0})
    compute = COMPUTE.model_copy(update={"dtype": "bfloat16", "activation_checkpointing": True})
    trainer = grpo(trained, tmp_path, settings=settings, compute=compute)
    before = {name: p.clone() for name, p in trainer.bare.named_parameters()}
    rows = trainer.run()
    assert len(rows) == 2 and all(p.dtype == torch.float32 for p in trainer.bare.parameters())
    assert any(not torch.equal(p, before[name]) for name, p in trainer.bare.named_parameters())
