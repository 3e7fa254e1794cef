"""Sharing changes nothing: log-probs, entropies and every gradient equal those of separate full sequences.

The naive way is itself held to transformers' plain forward. Decoding is compared in test_decoding.
"""

import dataclasses

import pytest
import torch

from tests.engine import (
    BATCHES,
    KINDS,
    backward,
    build,
    completions,
    difference,
    features,
    largest,
    stock_greedy,
    stock_logps,
)
from vlmr1.adapters import add_lora, freeze
from vlmr1.grpo import policy as policy_module
from vlmr1.grpo.attention import sharing_breaks
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.grpo.tree import Node, Tree
from vlmr1.settings import Lora

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
GRADIENT = 1e-5  # relative; norms and rotary angles go through fp32 whatever the weights' type


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory):
    return build(request.param, tmp_path_factory.mktemp(request.param))


def assert_equal(ours, theirs, mine, naive):
    """Two policies' answers, and the gradients of all they were given by."""
    tolerance = TOLERANCE[mine.bare.dtype]
    assert torch.equal(ours.mask, theirs.mask)
    assert difference(ours.logps, theirs.logps) < tolerance
    assert difference(ours.entropy, theirs.entropy) < tolerance
    assert ours.entropy[ours.mask].min() > 1  # nats: the test would be worth little on a model that is sure of itself
    gradients, expected = backward(mine, ours), backward(naive, theirs)
    assert gradients.keys() == expected.keys()
    assert largest(gradients, expected) < GRADIENT
    return gradients


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", BATCHES)
def test_sharing_changes_nothing(engine, name, dtype):
    prompts, groups = engine.prompts(BATCHES[name]), completions(BATCHES[name])
    shared, naive = engine.policy(True, dtype), engine.policy(False, dtype)
    expected = naive.score(prompts, groups)
    reached = assert_equal(shared.score(prompts, groups), expected, shared, naive).keys()
    unreached = {n for n, _ in shared.bare.named_parameters()} - reached
    blind = not any(prompt.pictures for prompt in prompts)
    assert unreached == (
        {n for n, _ in shared.bare.named_parameters() if engine.family.is_vision(n)} if blind else set()
    )
    expected = naive.score(prompts, groups)
    assert_equal(shared.score_after(shared.read(prompts), groups), expected, shared, naive)


@pytest.mark.parametrize("name", BATCHES)
def test_the_naive_way_is_the_plain_forward(engine, name):
    prompts, groups = engine.prompts(BATCHES[name]), completions(BATCHES[name])
    stock, naive = engine.stock(), engine.policy(False)
    with torch.no_grad():
        scored = naive.score(prompts, groups)
    for b, group in enumerate(groups):
        for g, completion in enumerate(group):
            alone = stock_logps(stock, engine.family, prompts[b], completion, naive.temperature)
            assert torch.allclose(scored.logps[b, g][scored.mask[b, g]], alone, atol=1e-9, rtol=0)


def test_activation_checkpointing(engine):
    prompts, groups = engine.prompts(BATCHES["mixed"]), completions(BATCHES["mixed"])
    shared, naive = engine.policy(True), engine.policy(False)
    shared.bare.train()
    shared.bare.activation_checkpointing_enable({"use_reentrant": False})
    layer = shared.bare.get_decoder().layers[0]
    calls = []
    layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert_equal(shared.score(prompts, groups), naive.score(prompts, groups), shared, naive)
    assert len(calls) == 2  # once forward, once again for the backward pass
    assert_equal(shared.score_after(shared.read(prompts), groups), naive.score(prompts, groups), shared, naive)


@pytest.mark.parametrize("vision", [False, True])
def test_low_rank_adapters(engine, vision):
    prompts, groups = engine.prompts(BATCHES["mixed"]), completions(BATCHES["mixed"])
    pair = []
    for share in (True, False):
        policy = engine.policy(share)
        settings = Lora(r=4, alpha=8.0, dropout=0.0, target_modules="all-linear", vision=vision)
        model = add_lora(policy.bare, engine.family, settings).double()
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:  # B begins as 0, which would hide A
                torch.nn.init.normal_(parameter, std=0.1, generator=generator)
        pair.append(Policy(model.eval(), policy.bare, engine.family, 0.9, share, torch.device("cpu")))
    shared, naive = pair
    reached = assert_equal(shared.score(prompts, groups), naive.score(prompts, groups), shared, naive).keys()
    assert reached == {n for n, p in shared.bare.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in reached)
    assert_equal(shared.score_after(shared.read(prompts), groups), naive.score(prompts, groups), shared, naive)


@pytest.mark.parametrize("projector", [True, False])
def test_features_made_ahead_of_a_frozen_tower(engine, projector):
    prompts, groups = engine.prompts(BATCHES["mixed"]), completions(BATCHES["mixed"])
    shared, naive = engine.policy(True), engine.policy(False)
    for policy in (shared, naive):
        freeze(policy.bare, engine.family, vision=True, projector=projector)
        assert engine.family.frozen(policy.bare, "tower")
    made = features(shared, prompts)
    assert made.keys() == {p.key for one in prompts for p in one.pictures}
    assert_equal(shared.score(prompts, groups, made), naive.score(prompts, groups), shared, naive)
    prefix = shared.read(prompts, made)
    assert_equal(shared.score_after(prefix, groups), naive.score(prompts, groups), shared, naive)


def test_prompts_read_once_serve_sampling_and_scoring(engine):
    """GRPO's step: read with gradients, sample from that reading, score what was sampled through it."""
    prompts = engine.prompts(BATCHES["one picture, several questions"])
    shared, naive = engine.policy(True), engine.policy(False)
    shared.bare.train()
    prefix = shared.read(prompts)
    groups = sample_completions(shared, prompts, 3, Sampling(0.9, 10), range(len(prompts)), prefix)
    assert shared.bare.training
    assert_equal(shared.score_after(prefix, groups), naive.score(prompts, groups), shared, naive)


def test_half_precision_is_as_near_as_the_naive_ways(engine):
    prompts, groups = engine.prompts(BATCHES["mixed"]), completions(BATCHES["mixed"])
    shared, naive = engine.policy(True, torch.float32), engine.policy(False, torch.float32)
    exact = naive.score(prompts, groups)
    with torch.autocast("cpu", torch.bfloat16):
        for scored in (shared.score(prompts, groups), naive.score(prompts, groups)):
            assert scored.logps.dtype == scored.entropy.dtype == torch.float32
            assert difference(scored.logps, exact.logps) < 0.2  # nats; about 0.05 either way
            assert difference(scored.entropy, exact.entropy) < 0.1
        sampled = sample_completions(shared, prompts, 2, Sampling(0.9, 6), range(len(prompts)))
    assert all(c for group in sampled for c in group)
    assert backward(shared, shared.score(prompts, groups)).keys() == {n for n, _ in shared.bare.named_parameters()}


def shifted(row):
    def shifted_row(self, completions_only=False):
        ids, positions = row(self, completions_only)
        return ids, positions + (torch.arange(ids.shape[1]) >= (0 if completions_only else self.split))

    return shifted_row


def all_visible(layout_of):
    def layout(*args, **kwargs):
        layout = layout_of(*args, **kwargs)
        calls = [c if c.visible is None else dataclasses.replace(c, visible=c.visible | True) for c in layout.calls]
        return dataclasses.replace(layout, calls=tuple(calls))

    return layout


def without_grandparents(path):
    return lambda self: path(self) if self.parent is None else path(self)[-len(self.parent.ids) :]


@pytest.mark.parametrize(
    ("owner", "attribute", "fault"),
    [
        (Tree, "row", shifted),
        (policy_module, "tree_layout", all_visible),
        (Node, "path", without_grandparents),
    ],
    ids=["positions", "visibility", "ancestors"],
)
def test_these_tests_can_fail(engine, monkeypatch, owner, attribute, fault):
    """A position off by one, a future that is seen, an ancestor that is not: each is far above every tolerance."""
    prompts = engine.prompts(BATCHES["one picture, several questions"])
    groups = completions(BATCHES["one picture, several questions"])
    shared, naive = engine.policy(True), engine.policy(False)
    expected = naive.score(prompts, groups)
    right = backward(naive, expected)
    monkeypatch.setattr(owner, attribute, fault(getattr(owner, attribute)))
    for scored in (shared.score(prompts, groups), shared.score_after(shared.read(prompts), groups)):
        assert difference(scored.logps, expected.logps) > 1e-2
        assert largest(backward(shared, scored), right) > 1e-2


SLIDING = {
    "use_sliding_window": True,
    "sliding_window": 6,
    "max_window_layers": 1,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
}


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "internvl"])
@pytest.mark.parametrize(("text", "reason"), [(SLIDING, "sliding_attention"), ({"attention_dropout": 0.1}, "random")])
def test_a_model_that_breaks_sharing_runs_apart_and_right(kind, text, reason, tmp_path):
    engine = build(kind, tmp_path, **text)
    batch = BATCHES["mixed"]
    prompts, groups = engine.prompts(batch), completions(batch)
    model = engine.stock()
    with pytest.raises(ValueError, match=rf"share_prefix: {kind} cannot share prompts exactly, because .*{reason}"):
        engine.family.check_sharing(True)
    engine.family.check_sharing(None)  # supervised training and evaluation
    assert reason in prepare(model, engine.family, share=True)
    policy, stock = Policy(model, model, engine.family, 0.9, False, torch.device("cpu")), engine.stock()
    with torch.no_grad():
        scored = policy.score(prompts, groups)
    for b, group in enumerate(groups):
        for g, completion in enumerate(group):
            alone = stock_logps(stock, engine.family, prompts[b], completion, 0.9)
            assert torch.allclose(scored.logps[b, g][scored.mask[b, g]], alone, atol=1e-9, rtol=0)
    greedy = sample_completions(policy, prompts, 1, Sampling(0.0, 10), range(len(prompts)))
    assert [c for (c,) in greedy] == [stock_greedy(stock, engine.family, prompt, 10) for prompt in prompts]


@pytest.mark.parametrize("name", ["attn_logit_softcapping", "final_logit_softcapping", "attention_chunk_size"])
def test_what_the_attention_cannot_do_is_refused_by_name(name, tmp_path):
    engine = build("internvl", tmp_path)
    model = engine.weights
    assert sharing_breaks(model) is None
    setattr(model.config.get_text_config(), name, 30.0)
    assert name in sharing_breaks(model)
    assert name in prepare(model, engine.family, share=True)
    assert model.config.get_text_config()._attn_implementation == "sdpa"
