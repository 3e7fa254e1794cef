"""The four tasks: what they ask, store, teach, read, reward and count."""

import pytest

from vlmr1.answers import Found
from vlmr1.grpo.scoring import Scorer
from vlmr1.rows import Row
from vlmr1.sample import Sample
from vlmr1.tasks import TASKS, gui, ovd, rec
from vlmr1.tasks import math as mathematics


def sample(task, solution, reward=None, problem="p", sizes=((100, 80),)):
    return Sample(7, ("a.png",), problem, solution, task, reward or TASKS[task].METHODS[0], "mine", "train", sizes)


SAMPLES = [
    sample("rec", "[10.0, 20.0, 30.0, 60.0]"),
    sample("rec", "None"),
    sample("ovd", '```json\n[{"bbox_2d":[10,20,30,60],"label":"a \\"red\\" cat"}]\n```'),
    sample("ovd", "None", "weighted_sum"),
    sample("math", "\\frac{1}{2}", "math"),
    sample("math", "B", "mcq", "Which?\nA. cat\nB. dog"),
    sample("math", "42", "numeric"),
    sample("math", "yes", "yes_no"),
    sample("gui", "No Defect"),
]


@pytest.mark.parametrize("one", SAMPLES, ids=lambda s: f"{s.task}-{s.reward}-{s.solution[:6]}")
def test_what_supervision_teaches_scores_full_marks(one):
    task = TASKS[one.task]
    said = task.answer(task.target(one, (200, 160)), one, (200, 160))
    rewards = task.rewards(said, one, ["accuracy", "format", one.reward])
    assert [reward.value for reward in rewards.values()] == [1, 1, 1] and next(iter(rewards)) == "accuracy"
    score = task.score(said, one)
    assert score[task.JUDGED] == 1 and score["parsed"] is True


@pytest.mark.parametrize("one", SAMPLES, ids=lambda s: f"{s.task}-{s.reward}-{s.solution[:6]}")
def test_nonsense_is_worth_nothing_and_counted(one):
    task = TASKS[one.task]
    said = task.answer("§§", one, (200, 160))
    rewards = task.rewards(said, one, [name for name in task.REWARDS if name != "llm"])
    assert rewards["accuracy"].value == rewards["format"].value == 0 and all(r.reason for r in rewards.values())
    assert task.score(said, one)[task.JUDGED] == 0


def test_the_named_rewards_alone_are_computed(monkeypatch):
    monkeypatch.setattr(rec, "iou_reward", lambda *args: pytest.fail("computed"))
    said = rec.answer("a", SAMPLES[0], (1, 1))
    assert list(rec.rewards(said, SAMPLES[0], ["format", "repetition"])) == ["format", "repetition"]


def test_accuracy_is_the_reward_the_row_asks_for():
    one, other = sample("math", "B", "mcq"), sample("math", "B", "all_match")
    said = mathematics.answer("<think>a</think><answer>(B)</answer>", one, (0, 0))
    assert mathematics.rewards(said, one, ["accuracy", "all_match"])["accuracy"].value == 1
    assert mathematics.rewards(said, other, ["accuracy", "mcq"])["accuracy"].value == 0


def test_unknown_names_are_refused_with_what_there_is():
    said = rec.answer("a", SAMPLES[0], (1, 1))
    with pytest.raises(ValueError, match="'odd' is no reward of this task; it has accuracy, format"):
        rec.rewards(said, SAMPLES[0], ["odd"])
    with pytest.raises(ValueError, match="mine id 7: task rec knows no accu_reward_method 'mcq'; one of iou"):
        rec.rewards(said, sample("rec", "None", "mcq"), ["format"])
    with pytest.raises(ValueError, match="mine id 7: accu_reward_method: 'mcq' is not known for task rec"):
        Scorer({"format": 1.0}, [sample("rec", "None", "mcq")])


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (sample("rec", "[1, 2, 3]"), "nor None"),
        (sample("ovd", "a cat"), "no boxes in it"),
        (sample("ovd", '[{"bbox_2d":[1,2,3,4]}]'), "a box without a label"),
        (sample("ovd", '[{"bbox_2d":[5,2,3,4],"label":"a"}]'), "empty or inverted"),
        (sample("math", " "), "the solution is empty"),
        (sample("math", "cat", "numeric"), "nothing that reward numeric can compare"),
        (sample("math", "A or B", "mcq"), "nothing that reward mcq can compare"),
        (sample("gui", "maybe", "yes_no"), "nothing that reward yes_no can compare"),
    ],
)
def test_a_malformed_truth_is_named(one, said):
    with pytest.raises(ValueError, match=rf"mine id 7: .*{said}"):
        TASKS[one.task].truth(one)


def test_the_box_that_counts_is_the_first_of_the_last_answer():
    text = "<think>a</think><answer>[1,2,3,4]</answer><answer>[5,6,7.5,8] and [1,1,9,9]</answer>"
    said = rec.answer(text, sample("rec", "None", sizes=()), (0, 0))
    assert said.box == (5, 6, 7.5, 8) and any("2 boxes where one is asked for" in p for p in said.problems)


def test_an_expression_without_a_target():
    nothing, one = SAMPLES[1], SAMPLES[0]
    said = rec.answer("<think>a</think><answer>None</answer>", one, (100, 80))
    assert rec.score(said, one) == {"iou": 0.0, "hit": False, "parsed": True}
    assert rec.score(said, nothing) == {"iou": 1.0, "hit": True, "parsed": True}
    box = rec.answer(rec.target(one, (100, 80)), nothing, (100, 80))
    assert rec.score(box, nothing) == {"iou": 0.0, "hit": False, "parsed": True}
    assert rec.rewards(box, nothing, ["iou"])["iou"].value == 0
    bare = rec.answer("None", nothing, (100, 80))  # an answer wants its block
    assert rec.rewards(bare, nothing, ["iou"])["iou"].value == 0 and not rec.score(bare, nothing)["parsed"]


def test_boxes_come_back_from_the_models_frame():
    one = SAMPLES[2]
    assert '"bbox_2d":[20,40,60,120]' in ovd.target(one, (200, 160))
    said = ovd.answer(ovd.target(one, (200, 160)), one, (200, 160))
    assert said.found == ovd.truth(one) == (Found((10, 20, 30, 60), 'a "red" cat'),)


def test_rows_become_questions_and_truths():
    row = Row(3, ("a",), (), "rec", "iou", text=" the red square ", boxes=((1, 2, 3.14159, 4),))
    assert rec.question(row).endswith("describes: the red square.") and rec.solution(row) == "[1, 2, 3.14, 4]"
    assert rec.solution(Row(3, ("a",), (), "rec", "iou", text="x")) == "None"
    row = Row(3, ("a",), (), "ovd", "odLength", boxes=((1, 2, 3.14159, 4),), labels=("cat",), asked=("cat", "red dog"))
    assert "detect the following objects: cat, red dog. Output" in ovd.question(row)
    assert ovd.solution(row) == '```json\n[{"bbox_2d":[1,2,3.14,4],"label":"cat"}]\n```'
    assert ovd.solution(Row(3, ("a",), (), "ovd", "odLength", asked=("cat",))) == "None"
    row = Row(3, ("a", "b"), (), "gui", "all_match", text=" <image> then <image>? ", answer=" No Defect ")
    assert gui.question(row) == "<image> then <image>?" and gui.solution(row) == "No Defect"


def test_the_instruction_stands_where_it_was_found_to_work():
    assert ovd.prompt(SAMPLES[2]).endswith("\np") and ovd.prompt(SAMPLES[2]).startswith("Think first")
    for task in (mathematics, gui):
        prompt = task.prompt(SAMPLES[4])
        assert prompt.startswith("p ") and "<answer>" in prompt and "JSON" not in prompt
    assert "JSON" in rec.prompt(SAMPLES[0])
