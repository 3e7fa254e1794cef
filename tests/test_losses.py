"""The losses against plain loops written from the formulas, and what must hold for each of them."""

import math

import pytest
import torch

from vlmr1.grpo.losses import LARGEST, policy_loss

TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"]
PLAIN = {"epsilon": 0.2, "epsilon_high": None, "delta": None, "beta": 0.0}
FULL = {"epsilon": 0.2, "epsilon_high": 0.28, "delta": 2.0, "beta": 0.04}
LONGEST = 9


def batch(seed=0, groups=4, size=3, width=7, spread=0.6):
    """Completions of several lengths, some wholly masked; padding holds what must never be read."""
    torch.manual_seed(seed)
    shape = (groups, size, width)
    logps = -3 * torch.rand(shape, dtype=torch.float64)
    lengths = torch.randint(1, width + 1, shape[:2])
    lengths[0, 0], lengths[-1, -1] = 0, 0
    mask = torch.arange(width) < lengths[..., None]
    old, reference = (logps + spread * torch.randn_like(logps) for _ in range(2))
    junk = torch.tensor([float("nan"), float("inf"), float("-inf")])[torch.randint(3, shape)].double()
    data = [t.where(mask, junk) for t in (logps, old, reference)]
    return *data, torch.randn(shape[:2], dtype=torch.float64), mask


def loss(logps, old, reference, advantages, mask, loss_type, options, totals=None):
    """`policy_loss` of a batch that is its step, unless the step's `totals` (tokens, completions) are given."""
    tokens, completions = totals or (int(mask.sum()), advantages.numel())
    return policy_loss(
        logps,
        old,
        advantages,
        mask,
        loss_type=loss_type,
        **options,
        reference_logps=reference if options["beta"] else None,
        total_tokens=tokens,
        total_completions=completions,
        max_completion_length=LONGEST,
    )


def by_hand(logps, old, reference, advantages, mask, loss_type, epsilon, epsilon_high, delta, beta):
    """The formulas, one token at a time. Returns the loss, the KL's sum and the tokens held back low and high."""
    high = epsilon if epsilon_high is None else epsilon_high
    per_completion, kl_sum, low_count, high_count = [], 0.0, 0, 0
    for b in range(mask.shape[0]):
        for g in range(mask.shape[1]):
            length, gain = int(mask[b, g].sum()), advantages[b, g].item()
            steps = [(logps[b, g, t].item(), old[b, g, t].item(), reference[b, g, t].item()) for t in range(length)]
            values = []
            for lp, lo, ref in steps:
                ratio = math.exp(lp - lo)
                if loss_type == "gspo":
                    ratio = math.exp(sum(a - b for a, b, _ in steps) / length)
                if loss_type == "cispo":
                    value = -min(ratio, high) * gain * lp
                    high_count += ratio > high
                else:
                    clipped = min(max(ratio, 1 - epsilon), 1 + high)
                    bounded = ratio if delta is None else min(ratio, delta)
                    value = -min(bounded * gain, clipped * gain)
                    low_count += gain < 0 and ratio < 1 - epsilon
                    high_count += ratio > 1 + high if gain > 0 else delta is not None and ratio > delta
                kl = math.exp(ref - lp) - (ref - lp) - 1
                kl_sum += kl
                values.append(value + beta * kl)
            per_completion.append(values)
    total, tokens = sum(map(sum, per_completion)), sum(map(len, per_completion))
    means = [sum(values) / len(values) if values else 0.0 for values in per_completion]
    value = {
        "grpo": sum(means) / len(means),
        "gspo": sum(means) / len(means),
        "dr_grpo": total / (len(per_completion) * LONGEST),
    }.get(loss_type, total / tokens)
    return value, kl_sum if beta else 0.0, low_count, high_count, tokens


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("options", [PLAIN, FULL, PLAIN | {"beta": 0.04}, PLAIN | {"epsilon_high": 2.0}])
def test_the_formula_by_hand(loss_type, options):
    data = batch()
    measured = loss(*data, loss_type, options)
    value, kl, low, high, tokens = by_hand(*data, loss_type, **options)
    assert measured.value.item() == pytest.approx(value, rel=1e-12)
    assert measured.kl.item() == pytest.approx(kl, rel=1e-12)
    assert (measured.clipped_low.item(), measured.clipped_high.item(), measured.tokens.item()) == (low, high, tokens)


def single(logp, old, advantage, loss_type="grpo", reference=None, **options):
    """(loss, its gradient by the log-prob) of one token."""
    leaf = torch.tensor([[[logp]]], requires_grad=True)
    fixed = torch.tensor([[[old]]]), None if reference is None else torch.tensor([[[reference]]])
    measured = loss(leaf, *fixed, torch.tensor([[advantage]]), torch.ones(1, 1, 1), loss_type, PLAIN | options)
    measured.value.backward()
    return measured, leaf.grad.item()


@pytest.mark.parametrize(
    "log_ratio, advantage, options, value, gradient, held",
    [
        (0.0, 1.5, {}, -1.5, -1.5, (0, 0)),  # on policy: the policy gradient
        (0.0, 1.5, {"epsilon": 0.0}, -1.5, -1.5, (0, 0)),
        (3.0, 1.0, {}, -1.2, 0.0, (0, 1)),  # already much likelier, and good: held
        (3.0, 1.0, {"epsilon_high": 0.5}, -1.5, 0.0, (0, 1)),
        (-3.0, -1.0, {}, 0.8, 0.0, (1, 0)),  # already much less likely, and bad: held
        (-3.0, 1.0, {}, -math.exp(-3), -math.exp(-3), (0, 0)),
        (3.0, -1.0, {}, math.exp(3), math.exp(3), (0, 0)),  # much likelier, and bad: only delta bounds it
        (3.0, -1.0, {"delta": 4.0}, 4.0, 0.0, (0, 1)),
        (1.0, -1.0, {"delta": 4.0}, math.e, math.e, (0, 0)),
        (3.0, 0.0, {"delta": 4.0}, 0.0, 0.0, (0, 0)),
    ],
)
def test_extreme_ratios(log_ratio, advantage, options, value, gradient, held):
    for loss_type in ("grpo", "gspo"):  # alike for a completion of one token
        measured, slope = single(-0.5, -0.5 - log_ratio, advantage, loss_type, **options)
        assert measured.value.item() == pytest.approx(value, rel=1e-6)
        assert slope == pytest.approx(gradient, rel=1e-6)
        assert (measured.clipped_low.item(), measured.clipped_high.item()) == held


@pytest.mark.parametrize("log_ratio, weight", [(3.0, 5.0), (1.0, math.e), (-3.0, math.exp(-3))])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_cispo_caps_the_weight_and_keeps_the_gradient(log_ratio, weight, advantage):
    measured, slope = single(-0.5, -0.5 - log_ratio, advantage, "cispo", epsilon_high=5.0)
    assert measured.value.item() == pytest.approx(weight * advantage * 0.5)
    assert slope == pytest.approx(-weight * advantage)
    assert measured.clipped_high.item() == (weight == 5.0) and measured.clipped_low.item() == 0


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("far", [100.0, -100.0, 1e4])
@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
def test_broken_log_probs_stay_finite(loss_type, far, advantage):
    measured, slope = single(-0.5, -0.5 - far, advantage, loss_type, reference=-0.5 + far, beta=0.04)
    assert all(math.isfinite(x) for x in (measured.value.item(), measured.kl.item(), slope))
    if advantage == 0:
        share = 1 / LONGEST if loss_type == "dr_grpo" else 1.0
        assert measured.value.item() == pytest.approx(0.04 * share * measured.kl.item())


def test_the_kl_pulls_towards_the_reference_and_never_away():
    for difference in (-300.0, -19.0, -1.0, 1.0, 19.0, LARGEST, 300.0):
        measured, slope = single(-0.5, -0.5, 0.0, reference=-0.5 + difference, beta=1.0)
        assert slope * difference <= 0  # descent raises the log-prob where the reference is higher
        if difference <= LARGEST:
            assert measured.kl.item() == pytest.approx(math.exp(difference) - difference - 1, rel=1e-5)
            assert slope == pytest.approx(1 - math.exp(difference), rel=1e-5)


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("options", [PLAIN, FULL])
def test_without_advantage_or_kl_nothing_pulls(loss_type, options):
    logps, old, reference, advantages, mask = batch(spread=30.0)
    leaf = logps.clone().requires_grad_()
    measured = loss(leaf, old, reference, torch.zeros_like(advantages), mask, loss_type, options | {"beta": 0.0})
    measured.value.backward()
    assert measured.value.item() == 0 and leaf.grad.abs().max() == 0
    assert measured.clipped_low == measured.clipped_high == 0


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("options", [PLAIN, FULL])
def test_shares_of_micro_batches_add_up(loss_type, options):
    data = batch(groups=6)
    mask, tokens, completions = data[-1], int(data[-1].sum()), data[-1][..., 0].numel()

    def summed(parts):
        leaf = data[0].clone().requires_grad_()
        shares = [
            loss(leaf[part], *(t[part] for t in data[1:]), loss_type, options, (tokens, completions)) for part in parts
        ]
        total = sum(share.value for share in shares)
        total.backward()
        return total.detach(), leaf.grad, shares

    whole, gradient, _ = summed([slice(0, 6)])
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    total, added, shares = summed(parts)
    assert gradient.isfinite().all() and (gradient[~mask] == 0).all() and (gradient[mask] != 0).any()
    if loss_type == "bnpo":  # a mean of the micro-batches' token means, so it depends on the split
        means = [loss(*(t[part] for t in data), loss_type, options).value for part in parts]
        shares_of_step = [(part.stop - part.start) / 6 for part in parts]
        whole = sum(share * mean for share, mean in zip(shares_of_step, means, strict=True))
        for share, part in zip(shares_of_step, parts, strict=True):
            gradient[part] *= share * tokens / int(mask[part].sum())
    assert total.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(added, gradient, rtol=1e-12, atol=1e-15)
    one = loss(*data, loss_type, options)
    for name in ("kl", "clipped_low", "clipped_high", "tokens"):
        assert sum(getattr(s, name) for s in shares).item() == pytest.approx(getattr(one, name).item())


@pytest.mark.parametrize("loss_type", TYPES)
def test_a_masked_completion_adds_nothing_but_is_counted_among_completions(loss_type):
    logps, old, reference, advantages, mask = batch()
    masked = mask.clone()
    masked[1] = False
    leaf = logps.clone().requires_grad_()
    before = loss(leaf, old, reference, advantages, masked, loss_type, FULL)
    before.value.backward()
    assert (leaf.grad[1] == 0).all() and before.value.isfinite()
    kept = [0, 2, 3]
    left = (t[kept] for t in (logps, old, reference, advantages, mask))
    after = loss(*left, loss_type, FULL, (int(masked.sum()), advantages.numel()))
    factor = 4 / 3 if loss_type == "bnpo" else 1.0  # its share is by the completions it was given
    assert before.value.item() == pytest.approx(after.value.item() * factor, rel=1e-12)


@pytest.mark.parametrize("loss_type", TYPES)
def test_a_micro_batch_wholly_masked_is_zero(loss_type):
    logps, old, reference, advantages, mask = batch()
    leaf = logps.clone().requires_grad_()
    measured = loss(leaf, old, reference, advantages, torch.zeros_like(mask), loss_type, FULL)
    measured.value.backward()
    assert measured.value.item() == 0 and (leaf.grad == 0).all()
    assert measured.kl == measured.tokens == 0


def test_bf16_log_probs_are_computed_in_fp32():
    data = [t.bfloat16() if t.is_floating_point() else t for t in batch()]
    wide = [t.float() if t.is_floating_point() else t for t in data]
    measured, expected = loss(*data, "dapo", FULL), loss(*wide, "dapo", FULL)
    assert measured.value.dtype == torch.float32 and measured.value == expected.value


def test_a_reference_is_wanted_exactly_with_beta():
    logps, old, _, advantages, mask = batch()
    with pytest.raises(ValueError, match="exactly when beta"):
        loss(logps, old, None, advantages, mask, "grpo", FULL)
