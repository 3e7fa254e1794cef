import statistics

import pytest
import torch

from vlmr1.grpo.advantages import STD_FLOOR, advantages, zero_variance

REWARDS = torch.tensor([[1.0, 2.0, 3.0], [0.7, 0.7, 0.7], [0.0, 0.5, 0.1]])


def by_hand(rewards, deviation):
    """The formula, one group at a time; `deviation` gives a group's divisor."""
    return [[(r - statistics.mean(group)) / deviation(group) for r in group] for group in rewards.tolist()]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_by_hand(scale):
    batch = statistics.stdev(REWARDS.flatten().tolist())
    deviation = {
        "group": lambda group: statistics.stdev(group) + STD_FLOOR,
        "batch": lambda group: batch + STD_FLOOR,
        "none": lambda group: 1.0,
    }[scale]
    found = advantages(REWARDS, scale, REWARDS.std() if scale == "batch" else None)
    for row, expected in zip(found.tolist(), by_hand(REWARDS, deviation), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6, -7.3])
def test_groups_without_variance_get_exact_zeros(scale, value):
    rewards = torch.full((2, 7), value)
    assert (advantages(rewards, scale, rewards.std()) == 0).all()
    assert zero_variance(rewards).all()


def test_zero_variance_tells_groups_apart():
    assert zero_variance(REWARDS).tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rewards_must_be_finite(bad):
    rewards = REWARDS.clone()
    rewards[1, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        advantages(rewards, "group", None)


def test_the_steps_deviation_must_be_given():
    with pytest.raises(ValueError, match="batch"):
        advantages(REWARDS, "batch", None)
