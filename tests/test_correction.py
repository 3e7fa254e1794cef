"""The importance correction, by hand, and the settings of rollouts over servers."""

import pytest
import torch

from tests.conftest import ALL, COMPUTE, default_params
from tests.test_remote_rollout import OFF, over
from tests.test_training import GRPO
from vlmr1.grpo.correction import Mismatch, laid_out
from vlmr1.grpo.losses import policy_loss
from vlmr1.settings import ELSEWHERE, Correction, Training, load_params


def test_weights_of_the_correction_and_its_figures():
    ours = torch.tensor([[[-1.0, -2.0, 0.0], [-1.0, 0.0, 0.0]]])
    theirs = torch.tensor([[[-1.5, -1.0, 9.0], [-3.0, 9.0, 9.0]]])
    mask = torch.tensor([[[True, True, False], [True, False, False]]])
    half, less, more = (torch.tensor(one).exp() for one in (0.5, -1.0, 2.0))
    seen = Mismatch()
    by_token = seen.weigh(ours, theirs, mask, Correction(level="token", cap=2.0))
    assert torch.allclose(by_token[mask], torch.stack([half, less, torch.tensor(2.0)]))
    figures = seen.figures(lambda *values: list(values), list)
    assert figures["sampler/difference"] == pytest.approx(3.5 / 3) and figures["sampler/difference_max"] == 2.0
    assert figures["sampler/ratio"] == pytest.approx(float(half + less + more) / 3)
    assert figures["sampler/ratio_max"] == pytest.approx(float(more)) and figures["sampler/cut_share"] == pytest.approx(
        1 / 3
    )
    assert figures["sampler/kl"] == pytest.approx(float(half + less + more - 3 - 1.5) / 3)
    by_sequence = seen.weigh(ours, theirs, mask, Correction(level="sequence", cap=3.0))
    assert torch.allclose(by_sequence, torch.tensor([[[-0.5], [-9e9]]]).exp())  # the second is beyond the cap
    assert seen.figures(lambda *values: list(values), list)["sampler/cut_share"] == 0.5
    assert seen.weigh(ours, theirs, mask, OFF) is None and seen.sums["tokens"] == 3


def test_a_weighted_loss_is_the_sum_of_weighted_tokens_and_of_the_kl():
    generator = torch.Generator().manual_seed(0)
    logps, old, reference = (-torch.rand(2, 3, 4, generator=generator) for _ in range(3))
    gains, weights = torch.randn(2, 3, generator=generator), torch.rand(2, 3, 4, generator=generator)
    more = {"epsilon": 0.2, "epsilon_high": None, "delta": None, "total_tokens": 24, "total_completions": 6}
    more |= {"loss_type": "dapo", "max_completion_length": 4}
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    loss = policy_loss(logps, old, gains, mask, beta=0.1, reference_logps=reference, weights=weights, **more)
    ratio = (logps - old).exp()
    surrogate = -torch.minimum(ratio * gains[..., None], ratio.clamp(0.8, 1.2) * gains[..., None])
    apart = reference - logps
    assert torch.allclose(loss.value, (weights * surrogate + 0.1 * (apart.exp() - apart - 1)).mean())


def test_log_probs_are_laid_out_as_completions_are_scored():
    completions = [[[5, 6], []], [[], []]]
    found = laid_out(completions, [[[-1.0, -2.0], [-3.0, -3.0, -3.0]], [[-4.0], [-4.0]]])
    assert found.tolist() == [[[-1.0, -2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("rollout", "more", "said"),
    [
        ({"weights": "adapter"}, {}, r"grpo\.rollout\.weights: adapter needs trained\.lora"),
        ({"weights": "nccl"}, {}, r"path: nccl goes through no folder; set it to null"),
        ({"path": None}, {}, r"path: is missing, the folder through which checkpoint goes"),
        ({"overlap": True}, {}, r"max_staleness: overlap samples with weights of one set before"),
        ({"max_staleness": 2}, {}, r"max_staleness"),
        ({"correction": {"level": "token", "cap": None}}, {}, r"cap: belongs to level token or sequence"),
        ({"correction": {"level": "off", "cap": 2.0}}, {}, r"cap: belongs to level token or sequence"),
        ({"correction": {"level": "sequence", "cap": 0.5}}, {}, r"cap: at least 1"),
        ({"servers": ("localhost:8000",)}, {}, r"'localhost:8000' is no address"),
        ({"servers": ("http://a/v1", "http://a/v1")}, {}, r"rollout\.vllm\.servers\n.*one is named twice"),
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


def test_in_process_is_what_null_is():
    given = GRPO.model_dump() | {"rollout": {"engine": "in_process"}}
    assert Training(compute=COMPUTE, trained=ALL, grpo=given, max_pixels=112 * 112).grpo.over_vllm is None


def test_the_engine_is_no_part_of_a_faults_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(default_params().replace("  rollout: null", "  rollout: {engine: vllm, server: [http://a/v1]}"))
    with pytest.raises(ValueError, match=r"grpo\.rollout\.server: unknown key; did you mean servers"):
        load_params(path)


def test_a_run_goes_on_with_other_servers():
    """Its work folder is known by what shapes the result, to which addresses and patience do not belong."""
    one, other = (
        Training(compute=COMPUTE, trained=ALL, grpo=GRPO.model_copy(update={"rollout": of}), max_pixels=112 * 112)
        for of in (over("http://a/v1"), over("http://b/v1", path="elsewhere", patience=1.0))
    )
    assert one != other and one.model_dump(exclude=ELSEWHERE) == other.model_dump(exclude=ELSEWHERE)
    plain = Training(compute=COMPUTE, trained=ALL, grpo=GRPO, max_pixels=112 * 112)
    assert plain.model_dump(exclude=ELSEWHERE) == plain.model_dump()
