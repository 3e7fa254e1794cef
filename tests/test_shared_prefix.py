"""The shared prefix against the naive way: each completion as its own full sequence, its picture encoded again."""

import pytest
import torch
from PIL import Image

from vlmr1.families import load_family
from vlmr1.grpo.logprobs import token_logprobs
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.shared_prefix import completion_logits, pad_completions
from vlmr1.tasks import rec

GROUPS = [[[305, 309, 311], [307, 308]], [[312, 306, 305, 308], [309]], [[303, 301, 302], [303, 304, 305]]]  # token ids


@pytest.fixture(scope="module")
def parts(tiny):
    checkpoint, source = tiny
    family = load_family(checkpoint, 112 * 112)
    model = family.load_model(checkpoint, torch.float64)
    prompts = []
    for sample in source.samples[:3]:  # two picture sizes, three prompt lengths
        with Image.open(source.picture(sample)) as picture:
            prompts.append(family.encode(rec.prompt(sample), picture))
    assert len({len(p.ids) for p in prompts}) > 1
    return family, model, prompts


def naive_logits(family, model, prompt, completion):
    """Logits that predict one completion after its prompt, through the model's own positions and causal mask."""
    ids = torch.tensor([prompt.ids + completion])
    kinds = (ids == family.image_id).int()
    output = model(input_ids=ids, pixel_values=prompt.pixel_values, image_grid_thw=prompt.grid, mm_token_type_ids=kinds)
    return output.logits[0, len(prompt.ids) - 1 : -1]


def naive_logprobs(family, model, prompt, completion):
    logits = naive_logits(family, model, prompt, completion)
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_logprobs_and_every_gradient_equal_the_naive_way(parts):
    family, model, prompts = parts
    model.zero_grad()
    naive = [[naive_logprobs(family, model, p, c) for c in group] for p, group in zip(prompts, GROUPS, strict=True)]
    weights = [[0.5 + i + 2 * j for j in range(2)] for i in range(3)]
    sum(w * lp.mean() for ws, lps in zip(weights, naive, strict=True) for w, lp in zip(ws, lps, strict=True)).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    ids, mask = pad_completions(GROUPS, family.pad_id)
    logps, entropy = token_logprobs(completion_logits(model, family.batch(model, prompts), ids), ids, 1.0, [])
    for b, group in enumerate(naive):
        for g, alone in enumerate(group):
            shared = logps[b, g][mask[b, g].bool()]
            assert (shared - alone).abs().max() < 1e-5  # norms round through fp32
    ((logps * mask).sum(-1) / mask.sum(-1) * torch.tensor(weights)).sum().backward()
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - expected[name]).norm() / expected[name].norm().clamp(min=1e-9)
        assert difference < 1e-5, f"{name}: {difference}"
    assert torch.isfinite(entropy).all()


def test_a_sibling_does_not_change_a_completion(parts):
    family, model, prompts = parts
    batch = family.batch(model, prompts[:1])
    with torch.no_grad():
        one = completion_logits(model, batch, torch.tensor([[[305, 309, 311], [307, 308, 303]]]))[0, 0]
        other = completion_logits(model, batch, torch.tensor([[[305, 309, 311], [400, 401, 402]]]))[0, 0]
    assert torch.allclose(one, other, atol=1e-9)


def test_greedy_rollout_equals_generate(parts):
    family, model, prompts = parts
    batch = family.batch(model, prompts)
    ours = sample_completions(model, family, batch, 1, 12, 0.0, None)
    generated = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        mm_token_type_ids=(batch.input_ids == family.image_id).int(),
        max_new_tokens=12,
        do_sample=False,
        suppress_tokens=family.never_sampled,
    )[:, batch.input_ids.shape[1] :].tolist()
    for (mine,), theirs in zip(ours, generated, strict=True):
        assert mine == theirs[: len(mine)]


def test_image_tokens_are_never_sampled_and_seeds_repeat(parts):
    family, model, prompts = parts
    batch = family.batch(model, prompts)
    one, two = (
        sample_completions(model, family, batch, 8, 16, 5.0, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert one == two
    assert not {t for group in one for c in group for t in c} & set(family.never_sampled)
    assert len({tuple(c) for c in one[0]}) > 1


def test_rollout_logprobs_equal_teacher_forcing(parts):
    """What the rollout samples from is what training computes the ratio with."""
    family, model, prompts = parts
    batch = family.batch(model, prompts)
    groups = sample_completions(model, family, batch, 2, 6, 1.0, torch.Generator().manual_seed(0))
    ids, mask = pad_completions(groups, family.pad_id)
    with torch.no_grad():
        shared, _ = token_logprobs(completion_logits(model, batch, ids), ids, 1.0, family.never_sampled)
        logits = naive_logits(family, model, prompts[1], groups[1][1])
        alone, _ = token_logprobs(logits, torch.tensor(groups[1][1]), 1.0, family.never_sampled)
    assert torch.allclose(shared[1, 1][mask[1, 1].bool()], alone, atol=1e-5)
