"""Decoding: its tokens are transformers' own, are drawn as they should be, and depend on their prompt alone."""

import math

import pytest
import torch
from transformers import GenerationConfig

from tests.engine import BATCHES, KINDS, build, stock_greedy
from vlmr1.grpo import rollout
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling, draws_for

MIXED = BATCHES["mixed"] + BATCHES["one picture, several questions"]
FILTERS = {
    "temperature": Sampling(0.7, 24),
    "top_k": Sampling(1.0, 24, top_k=5),
    "top_p": Sampling(1.3, 24, top_p=0.6),
    "min_p": Sampling(0.8, 24, min_p=0.1),
    "repetition_penalty": Sampling(0.9, 24, repetition_penalty=1.5),
    "all": Sampling(0.9, 24, top_p=0.8, top_k=40, min_p=0.02, repetition_penalty=1.2),
}


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory):
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """An engine of one kind, for what no kind changes."""
    return build("qwen2_5_vl", tmp_path_factory.mktemp("one"))


@pytest.fixture
def boosted():
    """Add to some tokens' logits, whoever asks the head."""
    handles = []

    def boost(policy, ids, by):
        def hook(_module, _inputs, logits):
            return logits.index_add(-1, torch.tensor(ids), torch.full((*logits.shape[:-1], len(ids)), by).to(logits))

        handles.append(policy.bare.get_output_embeddings().register_forward_hook(hook))

    yield boost
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("shared", [True, False])
def test_greedy_tokens_are_those_of_generate_on_each_prompt_alone(engine, shared):
    prompts = engine.prompts(MIXED)
    groups = sample_completions(engine.policy(shared), prompts, 2, Sampling(0.0, 16), range(len(prompts)))
    stock = engine.stock()
    for prompt, (one, other) in zip(prompts, groups, strict=True):
        assert one == other == stock_greedy(stock, engine.family, prompt, 16)


@pytest.mark.parametrize("sampling", [FILTERS["temperature"], FILTERS["all"]], ids=["plain", "filtered"])
def test_sampled_tokens_are_those_of_copied_prompts(engine, sampling):
    prompts, keys = engine.prompts(MIXED), range(len(MIXED))
    shared = sample_completions(engine.policy(True), prompts, 4, sampling, keys)
    assert shared == sample_completions(engine.policy(False), prompts, 4, sampling, keys)
    assert len({tuple(c) for group in shared for c in group}) > 2 * len(prompts)  # it did sample


def test_a_completion_depends_on_its_prompt_and_key_alone(engine, monkeypatch):
    """Not on the batch, on how soon others end, or on when ended rows leave."""
    prompts, keys, sampling = engine.prompts(MIXED), [f"key {b}" for b in range(len(MIXED))], Sampling(1.0, 40)
    policy = engine.policy(True)
    together = sample_completions(policy, prompts, 5, sampling, keys)
    lengths = [len(c) for group in together for c in group]
    assert min(lengths) < 30 and max(lengths) == 40  # some left the batch, some stayed
    assert together == [
        sample_completions(policy, [p], 5, sampling, [k])[0] for p, k in zip(prompts, keys, strict=True)
    ]
    assert together[::-1] == sample_completions(policy, prompts[::-1], 5, sampling, keys[::-1])
    monkeypatch.setattr(rollout, "WORTHWHILE", 0)  # never shrink
    assert together == sample_completions(policy, prompts, 5, sampling, keys)
    monkeypatch.setattr(rollout, "WORTHWHILE", 1)  # shrink whenever a row can go
    monkeypatch.setattr(rollout, "EVERY", 1)
    assert together == sample_completions(policy, prompts, 5, sampling, keys)
    assert together != sample_completions(policy, prompts, 5, sampling, range(len(prompts)))


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_sampled_from_is_what_is_scored(engine, shared):
    """The ratio of a first update is 1: the sampler's log-probs are the scorer's."""
    prompts = engine.prompts(MIXED)
    policy = engine.policy(shared)
    seen = []

    class Noting(Sampling):
        def choose(self, logits, draws):
            chosen = super().choose(logits, draws)
            seen.append(logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0])
            return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "WORTHWHILE", 0)
        groups = sample_completions(policy, prompts, 3, Noting(0.9, 12), range(len(prompts)))
    with torch.no_grad():
        scored = policy.score(prompts, groups)
    sampled = torch.stack(seen, dim=1).view(len(prompts), 3, -1)  # (B, G, T)
    assert torch.allclose(sampled[scored.mask], scored.logps[scored.mask], atol=1e-9, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sampling", [Sampling(0.0, 8), Sampling(5.0, 8), Sampling(1.0, 8, top_k=3)], ids=str)
def test_barred_tokens_are_never_sampled_however_likely(one, boosted, sampling, shared):
    policy, prompts = one.policy(shared), one.prompts(BATCHES["mixed"])
    boosted(policy, one.family.never_sampled, 100.0)
    groups = sample_completions(policy, prompts, 16, sampling, range(len(prompts)))
    assert not {token for group in groups for c in group for token in c} & set(one.family.never_sampled)


@pytest.mark.parametrize("shared", [True, False])
def test_every_end_token_stops(one, boosted, shared):
    assert len(one.family.end_ids) > 1
    prompts = one.prompts(BATCHES["mixed"])
    for end in one.family.end_ids:
        policy = one.policy(shared)
        boosted(policy, [end], 100.0)
        groups = sample_completions(policy, prompts, 3, Sampling(1.0, 8), range(len(prompts)))
        assert groups == [[[end]] * 3] * len(prompts)
    policy = one.policy(shared)
    boosted(policy, one.family.end_ids, 4.0)
    groups = sample_completions(policy, prompts, 16, Sampling(1.0, 12), range(len(prompts)))
    for completion in (c for group in groups for c in group):
        ends = [i for i, token in enumerate(completion) if token in one.family.end_ids]
        assert ends == [len(completion) - 1] or (not ends and len(completion) == 12)
    assert {c[-1] for group in groups for c in group} >= set(one.family.end_ids)


@pytest.mark.parametrize("shared", [True, False])
def test_logits_that_are_no_numbers_stop_the_rollout(one, shared):
    policy, prompts = one.policy(shared), one.prompts(BATCHES["mixed"])
    for sound in (0, 3):  # passes before the weights break
        passes = []

        def hook(_module, _inputs, logits, passes=passes, sound=sound):
            passes.append(1)
            return logits if len(passes) <= sound else logits * math.nan

        handle = policy.bare.get_output_embeddings().register_forward_hook(hook)
        policy.bare.train()
        with pytest.raises(FloatingPointError, match="not finite"):
            sample_completions(policy, prompts, 2, Sampling(1.0, 8), range(len(prompts)))
        handle.remove()
        assert policy.bare.training


@pytest.mark.parametrize("name", FILTERS)
def test_the_distribution_is_transformers_own(one, name):
    """Same order of the filters, same tokens left, same probabilities."""
    sampling, generator = FILTERS[name], torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(50, 300, generator=generator)
    said = torch.randint(7, 300, (50, 20), generator=generator)
    barred = torch.tensor(one.family.never_sampled)
    ours = sampling.distribution(logits.clone(), barred, said).softmax(-1)
    options = {k: getattr(sampling, k) for k in ("temperature", "top_p", "min_p", "repetition_penalty")}
    config = GenerationConfig(do_sample=True, suppress_tokens=barred.tolist(), top_k=sampling.top_k or 0, **options)
    model = one.weights
    model._prepare_special_tokens(config, device="cpu")
    processors = model._get_logits_processor(config, input_ids_seq_length=20, device="cpu")
    theirs = processors(said, logits.clone()).softmax(-1)
    assert torch.equal(ours > 0, theirs > 0)
    assert torch.allclose(ours, theirs, atol=1e-6)
    left = (ours > 0).sum(-1).float().mean()
    assert left < 100 or name in ("temperature", "repetition_penalty")  # the filter filtered


def test_draws_follow_the_distribution():
    """Pearson's chi-square over 20 tokens of which five are barred; 14 degrees of freedom, p = 0.001 at 36.1."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20, generator=generator, dtype=torch.float64)
    logits[[0, 7, 8, 13, 19]] = -math.inf  # the first, the last, and two side by side among them
    draws = draws_for(["a", "b"], 100, 100).flatten()  # (20000,)
    chosen = Sampling(1.0, 1).choose(logits.expand(len(draws), -1), draws)
    counts, expected = chosen.bincount(minlength=20), logits.softmax(-1) * len(draws)
    assert (counts[expected == 0] == 0).all()
    kept = expected > 0
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < 36.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_unit_interval_meet_no_barred_token(dtype):
    logits = torch.tensor([-math.inf, 0.0, -math.inf, -80.0, -math.inf], dtype=dtype)
    draws = torch.tensor([0.0, 1e-45, 0.5, 1 - 2**-24])
    assert Sampling(1.0, 1).choose(logits.expand(4, -1), draws).tolist() == [1, 1, 1, 1]
    alone = torch.tensor([-math.inf, -math.inf, -3.0], dtype=dtype)
    assert Sampling(1.0, 1).choose(alone.expand(4, -1), draws).tolist() == [2, 2, 2, 2]


def test_draws_are_each_keys_own():
    many = draws_for(["x", "y", 3], 4, 5)
    assert many.shape == (3, 4, 5) and many.min() >= 0 and many.max() < 1
    assert torch.equal(many[1:2], draws_for(["y"], 4, 5))
    assert not torch.equal(many[0], many[1])
