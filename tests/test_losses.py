import math

import pytest
import torch

from vlmr1.grpo.advantages import group_advantages, zero_variance
from vlmr1.grpo.losses import grpo_loss
from vlmr1.grpo.sampler import PromptSampler


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
    advantages = group_advantages(rewards)
    assert advantages[0].tolist() == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001])
    assert advantages[1].tolist() == [0, 0, 0]
    assert zero_variance(rewards).tolist() == [False, True]


def by_hand(logps, old, advantage, epsilon, reference, beta):
    """The formula on one completion, in plain Python."""
    total = 0.0
    for lp, lo, ref in zip(logps, old, reference, strict=True):
        ratio = math.exp(lp - lo)
        clipped = min(max(ratio, 1 - epsilon), 1 + epsilon)
        kl = math.exp(ref - lp) - (ref - lp) - 1
        total += -min(ratio * advantage, clipped * advantage) + beta * kl
    return total / len(logps)


def test_the_loss_by_hand_with_clip_kl_and_padding():
    logps = [[-1.0, -0.2, -3.0], [-0.5, -2.0]]
    old = [[-1.5, -0.2, -2.0], [-0.9, -1.2]]
    reference = [[-1.1, -0.4, -2.5], [-0.5, -2.2]]
    advantages = [1.3, -0.7]
    expected = (
        sum(by_hand(*row, 0.2, ref, 0.04) for *row, ref in zip(logps, old, advantages, reference, strict=True)) / 2
    )

    def pad(rows):
        return torch.tensor([[row + [float("-inf")] * (3 - len(row)) for row in rows]])

    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]]])
    loss = grpo_loss(pad(logps), pad(old), torch.tensor([advantages]), mask, 0.2, pad(reference), 0.04)
    assert loss.value.item() == pytest.approx(expected, rel=1e-6)
    assert loss.clip_share.item() == pytest.approx(2 / 5)  # ratios e^0.5 at +, e^-0.8 at -
    assert loss.kl.item() > 0


def test_on_policy_the_gradient_is_the_policy_gradient():
    logps = torch.tensor([[[-1.0, -2.0], [-0.5, -0.7]]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0]])
    grpo_loss(logps, logps.detach(), advantages, torch.ones(1, 2, 2), 0.0, None, 0.0).value.backward()
    assert logps.grad.flatten().tolist() == pytest.approx([-0.25, -0.25, 0.25, 0.25])


def test_the_sampler_yields_what_it_promises():
    sampler = PromptSampler(10, batch=4, steps=7, seed=1, repeats=2)
    order = list(sampler)
    assert len(order) == len(sampler) == 28
    steps = [order[i : i + 4] for i in range(0, 28, 4)]
    assert steps[0] == steps[1] and steps[2] == steps[3] and steps[0] != steps[2]
    assert len(set(steps[0] + steps[2])) == 8  # one pass visits a prompt once
    assert list(PromptSampler(10, 4, 7, 1, 2)) == order
    assert list(PromptSampler(10, 4, 7, 2, 2)) != order
    with pytest.raises(ValueError, match="cannot fill a step"):
        PromptSampler(3, 4, 1, 0)
