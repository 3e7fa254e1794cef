"""The reward-hacking watch on drawn runs whose truth is known."""

import random

import pytest

from vlmr1.grpo.journal import Journal
from vlmr1.grpo.watch import SPAN, Alike, Average, Watch

STEPS = 500


def drawn(seed, *, length=150.0, boxes=3.0, judged=0.5, reward=None, noise=0.06, spread=0.1, steps=STEPS):
    """Rows of a run. A figure is a number or a function of the run's share done; the reward is the judged metric's."""
    rng = random.Random(seed)
    rows = []
    for t in range(steps):

        def at(figure, done=t / steps):
            return figure(done) if callable(figure) else figure

        error = rng.gauss(0, noise)
        row = {
            "step": t + 1,
            "completion_length": at(length) * max(0.05, rng.gauss(1, spread)),
            "boxes": at(boxes) * max(0.05, rng.gauss(1, spread)),
            "judged": at(judged) + error,
            "reward": at(judged) + error if reward is None else at(reward) + rng.gauss(0, noise),
            "truncated_share": 0.125,
        }
        rows.append(row)
    return rows


def alarms(rows):
    watch = Watch()
    return [alarm for row in rows for alarm in watch.see(row)]


def runaway(x):
    return 7.0**x  # the paper's growth, 150 to over 1000 tokens


def half_way(figure):
    """A figure that stays through the run's first half and then takes its course."""
    return lambda x: figure(max(0.0, 2 * x - 1))


RUNAWAY = {"length": lambda x: 150 * runaway(x), "boxes": lambda x: 3 * runaway(x), "judged": 0.4}
HEALTHY = {"length": lambda x: 100 * 2**x, "boxes": lambda x: 1 + 2 * x, "judged": lambda x: 0.3 + 0.3 * x}
APART = {"judged": lambda x: 0.5 - 0.2 * x, "reward": lambda x: 0.4 + 0.3 * x}
STILL = {
    "an ordinary run": {},
    "a noisy one": {"noise": 0.2, "spread": 0.4},
    "short completions": {"length": 20.0, "boxes": 1.0, "judged": 0.05, "noise": 0.02, "spread": 0.5},
    "a reward that rises alone": {"reward": lambda x: 0.3 + 0.5 * x},
}


@pytest.mark.parametrize("seed", range(20))
def test_runaway_boxes_and_length_raise_early(seed):
    found = alarms(drawn(seed, **RUNAWAY, reward=lambda x: 0.4 + 0.2 * x))
    for kind in ("boxes", "completion_length"):
        first = next(alarm for alarm in found if alarm.kind == kind)
        assert first.step < STEPS / 2  # long before the run has grown sevenfold
        assert f"{kind} " in first.message and "judged 0." in first.message and "truncated_share 0.12" in first.message


@pytest.mark.parametrize("seed", range(20))
def test_a_runaway_after_healthy_learning_raises(seed):
    late = {"length": half_way(RUNAWAY["length"]), "boxes": half_way(RUNAWAY["boxes"])}
    found = alarms(drawn(seed, **late, judged=lambda x: 0.3 + 0.3 * min(2 * x, 1)))
    assert {alarm.kind for alarm in found} >= {"boxes", "completion_length"}
    assert min(alarm.step for alarm in found) > STEPS / 2


def test_growth_after_earned_growth_must_be_earned_anew():
    found = alarms(drawn(0, length=lambda x: 100 * 9**x, judged=lambda x: 0.2 + min(x, 0.5)))
    assert {alarm.kind for alarm in found} == {"completion_length"}
    assert min(alarm.step for alarm in found) > STEPS / 2


def test_growth_that_brings_better_answers_is_silent():
    assert sum(bool(alarms(drawn(seed, **HEALTHY))) for seed in range(200)) <= 2


@pytest.mark.parametrize("name", STILL)
def test_noise_is_silent(name):
    assert sum(bool(alarms(drawn(seed, **STILL[name]))) for seed in range(200)) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_a_reward_that_rises_while_the_judged_metric_falls_raises(seed):
    found = alarms(drawn(seed, **APART))
    assert [alarm.kind for alarm in found][:1] == ["reward"]
    assert "reward 0." in found[0].message


def test_growth_too_small_to_matter_is_silent():
    assert not alarms(drawn(0, length=lambda x: 8 + 7 * x, boxes=lambda x: 0.5 + 0.8 * x, spread=0.0))


def test_where_nothing_judges_growth_raises():
    rows = [row | {"judged": None} for row in drawn(0, **RUNAWAY)]
    assert {alarm.kind for alarm in alarms(rows)} == {"completion_length", "boxes"}
    assert all("judged unknown" in alarm.message for alarm in alarms(rows))
    assert not alarms([{k: v for k, v in row.items() if k != "judged"} for row in drawn(0)])


def test_an_alarm_is_raised_once_until_it_has_gone_back():
    def there_and_back(x):
        return 100 * (3 if 0.2 < x < 0.4 or x > 0.7 else 1)

    found = alarms(drawn(0, length=there_and_back, noise=0.0))
    assert [alarm.kind for alarm in found] == ["completion_length"] * 2
    assert found[0].step < 0.4 * STEPS and found[1].step > 0.7 * STEPS


@pytest.mark.parametrize("course", [RUNAWAY, APART])
def test_a_replayed_watch_raises_the_same_alarms(course):
    rows = drawn(3, **course)
    straight = alarms(rows)
    assert straight
    for stopped in (1, SPAN, 200, 499):
        resumed = Watch()
        before = [alarm for row in rows[:stopped] for alarm in resumed.see(row)]
        assert before + [alarm for row in rows[stopped:] for alarm in resumed.see(row)] == straight


def test_figures_that_are_no_numbers_are_passed_over():
    rows = drawn(0, steps=60)
    odd = [row | {"completion_length": float("nan"), "boxes": None} for row in rows[:5]]
    assert alarms(odd + rows) == alarms(rows) == []


def test_the_noise_of_an_average_is_what_it_claims():
    rng = random.Random(0)
    ends, scatters = [], []
    for _ in range(400):
        average = Average()
        for _ in range(150):
            average = average.add(rng.gauss(2.0, 0.5))
        ends.append(average.value)
        scatters.append(average.scatter)
    mean = sum(ends) / len(ends)
    assert sum(scatters) / len(scatters) == pytest.approx(0.25, rel=0.05)
    assert sum((end - mean) ** 2 for end in ends) / len(ends) == pytest.approx(0.25 / SPAN, rel=0.2)


# Servers that part from training.


def compared(differences, staleness=0.0, cut=0.0):
    return [
        {"step": i + 1, "sampler/difference": one, "sampler/cut_share": cut, "staleness": staleness}
        for i, one in enumerate(differences)
    ]


def parted(rows):
    alike = Alike()
    return [(alarm.step, alarm.kind) for row in rows for alarm in alike.see(row)]


@pytest.mark.parametrize("usual", [3e-7, 0.01, 0.04])
def test_servers_that_suddenly_differ_raise_once_until_it_is_over(usual):
    found = parted(compared([usual] * 5 + [6 * usual + 1e-3] * 4 + [usual, 0.4]))
    assert found == [(6, "sampler/difference"), (11, "sampler/difference")]


def test_servers_that_differ_from_the_first_raise():
    assert parted(compared([0.5] * 9)) == [(1, "sampler/difference")]
    assert parted(compared([0.01] * 9, cut=0.6)) == [(1, "sampler/cut_share")]


def test_servers_of_older_weights_other_precision_or_none_are_silent():
    assert not parted(compared([0.02] * 5 + [0.5] * 5, staleness=1.0))
    rng = random.Random(0)
    assert not parted(compared([0.02 * rng.uniform(0.3, 2.0) * 1.01**i for i in range(200)], cut=0.01))
    assert not parted(compared([3e-7, 7e-5, 3e-7] * 9)) and not parted(drawn(0))


def test_what_the_servers_raise_is_written_and_known_again_after_a_restart(tmp_path, capsys):
    rows = compared([3e-7] * 5 + [0.01] * 2)
    journal, counts = Journal(tmp_path, False), []
    for row in rows:
        totals = {"alarms": journal.write(row["step"], [], [], {}), "staleness": 0.0}
        figures = {key: of for key, of in row.items() if key.startswith("sampler")}
        assert journal.see(totals, figures) is figures
        journal.see(totals, {"sampler/difference": 0.9})  # the set's second step, which is compared no more
        counts.append(totals["alarms"])
    assert counts == [0.0] * 5 + [1.0, 0.0]
    (line,) = journal.alarms.read_text().splitlines()
    assert line.startswith('{"step": 6, "kind": "sampler/difference"')
    assert "ALARM at step 6: sampler/difference 0.01, 3e-07 before" in capsys.readouterr().out
    again = Journal(tmp_path, False)
    again.replay(rows)
    assert again.alike == journal.alike
