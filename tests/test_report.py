import pytest

from vlmr1.evaluation.intervals import bootstrap_mean, paired_difference, wilson
from vlmr1.evaluation.summary import summarise
from vlmr1.policies import LABELS
from vlmr1.report.facts import differences, sentences
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS


def test_wilson_by_the_book():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 20)[0] == 0.0 and wilson(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_the_bootstrap_covers_and_repeats():
    values = [0.0, 1.0] * 200
    low, high = bootstrap_mean(values)
    assert low < 0.5 < high and high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
    assert bootstrap_mean(values) == (low, high)


def test_paired_differences_use_the_pairing():
    """The same small gain on items of very different difficulty is clear, though the two means' intervals overlap."""
    theirs = [i / 100 for i in range(100)]
    mean, low, high = paired_difference([v + 0.02 for v in theirs], theirs)
    assert mean == pytest.approx(0.02) and low > 0 and high < 0.03


def prediction(index, iou, parsed=True):
    return {"index": index, "iou": iou, "hit": iou > 0.5, "parsed": parsed, "tokens": 16}


def sample(index, task="rec", solution="[0, 0, 10, 10]", **more):
    return Sample(index, ("a.png",), "q", solution, task, TASKS[task].METHODS[0], "s", "test", ((100, 100),), **more)


def test_figures_count_what_could_not_be_read():
    rows = [prediction(0, 0.9), prediction(1, 0.5), prediction(2, 0.0, parsed=False)]
    figures = summarise(rows, [sample(i) for i in range(3)])
    assert figures["n"] == 3 and figures["acc_0.5"] == pytest.approx(1 / 3)
    assert figures["parse_failure_rate"] == pytest.approx(1 / 3)
    assert figures["acc_0.5_low"] < 1 / 3 < figures["acc_0.5_high"]


def run_with(**ious):
    """Predictions of every policy on two sources, IoU by policy and source."""
    return {
        policy: {
            source: {
                way: [prediction(i, ious.get(f"{policy.replace('-', '_')}_{source}", 0.4)) for i in range(40)]
                for way in ("greedy", "sampled")
            }
            for source in ("near", "far")
        }
        for policy in LABELS
    }


TRAINING = {
    "prompts_seen": 10,
    "reward_first_tenth": 1.0,
    "alarms": [],
    "reward_last_tenth": 1.1,
    "reward_gain_in_standard_errors": 9.0,
}
SOURCES = {
    "t": {"role": "train", "rows": 12, "refused": 2, "samples": 10},
    "near": {"role": "evaluate", "rows": 40, "refused": 0, "samples": 40},
}


def table(base, grpo):
    """Figures of base and GRPO, greedy Acc@0.5 with intervals, on one source."""
    return {
        policy: {
            "near": {"greedy": {"judged": "acc_0.5", "acc_0.5": v, "acc_0.5_low": v - 0.1, "acc_0.5_high": v + 0.1}}
        }
        for policy, v in (("base", base), ("grpo", grpo))
    }


def test_sentences_say_what_got_worse_and_where_sft_wins():
    found = differences(run_with(grpo_near=0.9, grpo_far=0.1, sft_samples_far=0.8))
    said = sentences(found, TRAINING, SOURCES, table(0.4, 0.9))
    line = next(s for s in said if s.startswith("GRPO against base, greedy Acc@0.5"))
    assert "better on near (+1.000)" in line and "worse on nowhere" in line and "no clear difference: far" in line
    assert "worse on far (mean IoU, greedy, -0.300)" in line
    line = next(s for s in said if s.startswith("GRPO against SFT, equal samples, greedy Acc@0.5"))
    assert "better on near" in line and "worse on far (-1.000)" in line
    assert any("t 2 of 12" in s for s in said)
    assert not any("stand apart" in s or "nothing beyond noise" in s for s in said)
    assert "a clear rise" in said[0]


def test_a_run_that_taught_nothing_is_called_that():
    training = TRAINING | {"reward_gain_in_standard_errors": 1.0}
    said = sentences(differences(run_with()), training, SOURCES, table(0.4, 0.55))
    assert said[0].startswith("GRPO improved nothing beyond noise") and "10 prompts from 10 training" in said[0]
    assert "not a clear rise" in said[1]


def test_policies_asked_different_items_are_not_compared():
    predictions = run_with()
    predictions["grpo"]["near"]["greedy"] = [prediction(i + 1, 0.9) for i in range(40)]
    with pytest.raises(ValueError, match="different items"):
        differences(predictions)


def test_gains_without_intervals_apart_are_called_hints():
    found = differences(run_with(grpo_near=0.9))
    said = sentences(found, TRAINING, SOURCES, table(0.4, 0.55))
    assert any("stand apart: take gains as hints" in s for s in said)
    assert not any("nothing beyond noise" in s for s in said)
