"""Which prompts a step sees: fixed by the seed, whole passes, nothing that was kept out."""

import pytest

from vlmr1.grpo.sampler import PromptSampler


def test_it_yields_what_it_promises():
    sampler = PromptSampler(10, batch=4, steps=7, seed=1, repeats=2)
    order = list(sampler)
    assert len(order) == len(sampler) == 28
    steps = [order[i : i + 4] for i in range(0, 28, 4)]
    assert steps[1] == [-1 - index for index in steps[0]] and steps[3] == [-1 - index for index in steps[2]]
    assert len(set(steps[0] + steps[2])) == 8  # one pass visits a prompt once
    assert all(index >= 0 for index in steps[0] + steps[2])
    assert list(PromptSampler(10, 4, 7, 1, 2)) == order
    assert list(PromptSampler(10, 4, 7, 2, 2)) != order
    with pytest.raises(ValueError, match="cannot fill a step"):
        PromptSampler(3, 4, 1, 0)


def test_what_is_kept_out_is_never_yielded():
    sampler = PromptSampler(10, batch=2, steps=40, seed=1, keep_out=3)
    assert len(sampler.kept_out) == 3 and not set(sampler) & set(sampler.kept_out)
    assert set(sampler) | set(sampler.kept_out) == set(range(10))
    assert PromptSampler(10, 2, 4, 1, keep_out=3).kept_out == sampler.kept_out
    with pytest.raises(ValueError, match="7 samples cannot fill a step of 8"):
        PromptSampler(10, 8, 1, 1, keep_out=3)
