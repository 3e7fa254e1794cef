import pytest

from vlmr1.answers import read
from vlmr1.rewards.detection import iou_reward
from vlmr1.rewards.shape import rec_format_reward
from vlmr1.sample import Sample
from vlmr1.tasks import rec

SAMPLE = Sample(
    3, ("a.png",), rec.problem("the red square"), "[10, 20, 30, 60]", "rec", "iou", "s", "train", ((100, 80),)
)


def completion(box="[10,20,30,60]", think="x"):
    return f'<think>{think}</think><answer>{{"bbox_2d":{box}}}</answer>'


def test_the_target_scores_full_reward_and_a_hit():
    text = rec.target(SAMPLE, (112, 112))
    said = rec.answer(text, SAMPLE, (112, 112))
    assert rec.rewards(said, SAMPLE, ["format"])["format"].value == 1.0
    assert rec.rewards(said, SAMPLE, ["iou"])["iou"].value > 0.9  # whole pixels of another frame
    assert rec.score(said, SAMPLE)["hit"] is True


def test_boxes_come_back_from_the_models_frame():
    said = rec.answer(completion("[20,40,60,120]"), SAMPLE, (200, 160))
    assert said.box == (10, 20, 30, 60)
    assert iou_reward(said, rec.truth(SAMPLE)).value == 1.0


def test_a_hit_is_strictly_above_one_half():
    half = rec.score(read(completion("[10,20,30,40]")), SAMPLE)
    assert half["iou"] == 0.5 and half["hit"] is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        completion("[10,20,30]"),
        " x" + completion(),
        completion() + "y",
        "<think>a</think><answer>[10,20,30,60]</answer>",
        "<think>a</think><answer>{}</answer>",
        "<answer>" * 3,
        completion("[10,20,30,60,70]"),
    ],
)
def test_ill_formed_completions_get_no_format_reward_and_a_reason(text):
    reward = rec_format_reward(read(text))
    assert reward.value == 0.0 and reward.reason


def test_an_unreadable_answer_is_worth_nothing_and_says_why():
    reward = iou_reward(read("no idea"), (0, 0, 1, 1))
    assert (reward.value, reward.parsed) == (0.0, False)
    assert "no closed answer" in reward.reason


@pytest.mark.parametrize("solution", ["", "null", "[1, 2, 3]", "[5, 5, 1, 9]", '["a", 1, 2, 3]'])
def test_a_malformed_truth_is_named(solution):
    bad = Sample(7, ("a",), "p", solution, "rec", "iou", "mine", "train", ((9, 9),))
    with pytest.raises(ValueError, match="mine id 7"):
        rec.truth(bad)


def test_a_label_beside_the_box_is_well_formed():
    assert rec_format_reward(read(completion('[10,20,30,60], "label": "cat"'))).value == 1.0
