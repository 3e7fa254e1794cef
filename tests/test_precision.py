"""Average precision and matching against pycocotools and by hand."""

import random
import time

import numpy as np
import pytest

from benchmarks.rewards import boxes, by_pycocotools, measure_ap
from vlmr1.answers import Found, read
from vlmr1.rewards.detection import detection_reward, match
from vlmr1.rewards.precision import average_precision, ious

CAT = Found((0, 0, 10, 10), "cat")
FAR = Found((500, 500, 510, 510), "cat")


def said(*found):
    inside = ",".join(f'{{"bbox_2d":{list(one.box)},"label":"{one.label}"}}' for one in found)
    return read(f"<think>a</think><answer>```json\n[{inside}]\n```</answer>")


@pytest.mark.parametrize("charge", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_values_are_those_of_pycocotools(charge, whole):
    rng = random.Random(f"{charge}{whole}")
    for _ in range(150):
        truth = boxes(rng, rng.randrange(1, 12), whole=whole)
        answer = boxes(rng, rng.randrange(25), truth, whole)
        answer += rng.choices([*truth, *answer], k=rng.randrange(6))  # said twice
        answer += [Found(one.box, "a zebra") for one in rng.choices(truth, k=rng.randrange(3))]
        rng.shuffle(answer)
        assert average_precision(answer, truth, charge) == pytest.approx(
            by_pycocotools(answer, truth, charge), abs=1e-9
        )


def test_ties_at_a_threshold_and_between_true_boxes_go_as_in_pycocotools():
    shifted = [Found((i, 0, 10 + i, 10), "cat") for i in range(6)]  # overlaps of 1, 9/11, 2/3, …
    exact = [Found((0, 0, 10, 5), "cat"), Found((0, 5, 10, 10), "cat"), CAT]  # 0.5 exactly, twice
    for truth in ([CAT], [CAT, CAT], shifted[:3], exact):
        for answer in (shifted, shifted[::-1], exact, exact[::-1], [FAR, *shifted]):
            ours = average_precision(answer, truth, False)
            assert ours == pytest.approx(by_pycocotools(answer, truth, False), abs=1e-9)


def test_no_more_than_a_hundred_boxes_of_a_label_count():
    many = [FAR] * 99
    for answer in ([*many, CAT], [*many, FAR, CAT]):
        assert average_precision(answer, [CAT], False) == pytest.approx(by_pycocotools(answer, [CAT], False), abs=1e-9)
    assert average_precision([*many, FAR, CAT], [CAT], False) == 0


def test_overlaps_are_continuous():
    a = np.array([[0, 0, 10, 10], [9, 9, 19, 19.0]])
    assert ious(a, a)[0].tolist() == [1.0, 1 / 199]


def test_labels_the_truth_does_not_hold_are_charged_and_overlooked_by_name():
    zoo = [Found((20 * i, 0, 20 * i + 9, 9), f"animal {i}") for i in range(40)]
    for name, value in {"od_ap": 1 / 41, "od_ap50": 1 / 41, "map": 1 / 41, "odLength": 1 / 41 / 41}.items():
        assert detection_reward(name, said(CAT, *zoo), [CAT]).value == pytest.approx(value)
    assert detection_reward("od_ap_lenient", said(CAT, *zoo), [CAT]).value == 1.0
    assert detection_reward("odLength_lenient", said(CAT, *zoo), [CAT]).value == pytest.approx(1 / 41)


def test_length_is_charged_by_odLength_alone():
    assert detection_reward("od_ap", said(*[CAT] * 10), [CAT]).value == 1.0
    assert detection_reward("odLength", said(*[CAT] * 10), [CAT]).value == pytest.approx(0.1)
    assert detection_reward("odLength", said(CAT), [CAT, FAR]).value == pytest.approx(51 / 101)
    twisted = said(CAT, Found((9, 9, 1, 1), "cat"))
    assert detection_reward("odLength", twisted, [CAT]).value == 0.5  # a box that is none was said all the same


def test_nothing_to_find():
    none = read("<think>a</think><answer>None</answer>")
    words = read("<think>a</think><answer>there is nothing like that</answer>")
    for name in ("odLength", "od_ap", "od_ap50", "map", "weighted_sum"):
        assert detection_reward(name, none, []).value == 1.0
        assert detection_reward(name, none, [CAT]).value == 0.0
        assert detection_reward(name, said(CAT), []).value == 0.0
        reward = detection_reward(name, words, [])
        assert reward.value == 0.0 and not reward.parsed and reward.reason


def test_without_an_answer_block_only_map_and_its_kin_read():
    bare = read('```json\n[{"bbox_2d":[0,0,10,10],"label":"cat"}]\n```')
    values = {
        n: detection_reward(n, bare, [CAT]).value for n in ("map", "odLength", "weighted_sum", "od_ap", "od_ap50")
    }
    assert values == {"map": 1.0, "odLength": 1.0, "weighted_sum": 1.0, "od_ap": 0.0, "od_ap50": 0.0}


def original_detection_score(answer, truth):
    """The published definition of weighted_sum, stated once more and slowly."""
    pairs = []
    for i, one in enumerate(answer):
        for j, true in enumerate(truth):
            pairs.append((ious(np.array([one.box]), np.array([true.box])).item(), i, j))
    pairs.sort(key=lambda pair: -pair[0])
    used, got, total = set(), set(), 0.0
    for value, i, j in pairs:
        if value >= 0.5 and i not in used and j not in got:
            used.add(i)
            got.add(j)
            total += value if answer[i].label == truth[j].label else 0.0
    missed, alarms = (len(truth) - len(got)) / len(truth), (len(answer) - len(used)) / len(answer)
    return 0.7 * total / len(truth) + 0.3 * (1 - (missed + alarms) / 2)


def test_weighted_sum_is_what_was_published():
    rng = random.Random(3)
    for _ in range(100):
        truth = boxes(rng, rng.randrange(1, 9))
        answer = boxes(rng, rng.randrange(1, 15), truth)
        value = detection_reward("weighted_sum", said(*answer), truth).value
        assert value == pytest.approx(original_detection_score(answer, truth), abs=1e-6)


def test_boxes_are_matched_one_to_one_the_best_first():
    truth = [Found((0, 0, 10, 10), "a"), Found((0, 0, 10, 9), "b")]
    answer = [Found((0, 0, 10, 9), "a"), Found((0, 0, 10, 8), "a"), Found((90, 90, 99, 99), "a")]
    assert match(answer, truth) == [(0, 1, 1.0), (1, 0, 0.8)]
    assert match([], truth) == [] and match(answer, []) == []


def test_a_hundred_and_twenty_eight_completions_are_scored_in_a_moment():
    figures = measure_ap(rounds=3)
    assert figures["largest_difference"] < 1e-9
    assert figures["ours"] < 0.020 and figures["ratio"] > 20


def test_thousands_of_boxes_take_no_time():
    many = said(*[Found((i, 0, i + 9, 9), "cat") for i in range(2500)])
    start = time.process_time()
    detection_reward("odLength", many, [CAT] * 30)
    assert time.process_time() - start < 0.05
