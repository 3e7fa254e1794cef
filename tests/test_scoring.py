"""`vlmr1 reward NAME`, and which reward a list's rows are given."""

import json

import pytest

from tests.conftest import run
from vlmr1.scoring import score_rows, summary
from vlmr1.train import load_jsonl, task_of

REC = '<think>a</think><answer>{"bbox_2d":[20,40,60,120]}</answer>'


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shorter(completion, sample, answer, pictures):
    return 1 / len(completion)


def test_rows_are_scored_and_explained(tmp_path):
    rows = [
        {"completion": REC, "solution": [10, 20, 30, 60], "size": [100, 80], "input_size": [160, 200], "more": 1},
        {"completion": "<think>a</think><answer>None</answer>", "solution": None},
        {"completion": "nonsense", "solution": "[1,2,3,4]"},
    ]
    scored = score_rows("iou", write(tmp_path / "a.jsonl", *rows), tmp_path / "out.jsonl")
    assert [row["value"] for row in scored] == [1, 1, 0] and [row["parsed"] for row in scored] == [True, True, False]
    assert scored[0]["reason"] == "IoU 1.000" and "no closed answer block" in scored[2]["problems"]
    left = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert left == scored and left[0]["more"] == 1
    assert summary("iou", scored) == "iou: 3 rows, mean 0.667, least 0.000, most 1.000; 1 could not be read"


def test_a_reward_brings_its_task(tmp_path):
    boxes = {"completion": "<answer>[1,2,3,4]</answer>", "solution": [[1, 2, 3, 4]], "labels": ["cat"]}
    (row,) = score_rows("od_ap", write(tmp_path / "a.jsonl", boxes), tmp_path / "out.jsonl")
    assert row["task"] == "ovd" and row["value"] == 0  # no label was said
    word = {"completion": "<answer>(B)</answer>", "solution": "B"}
    (row,) = score_rows("mcq", write(tmp_path / "a.jsonl", word), tmp_path / "out.jsonl")
    assert row["task"] == "math" and row["value"] == 1
    (row,) = score_rows("length", write(tmp_path / "a.jsonl", word | {"task": "gui", "tokens": 1024}), tmp_path / "o")
    assert row["value"] == -0.5
    (row,) = score_rows(
        "tests.test_scoring:shorter", write(tmp_path / "a.jsonl", word | {"task": "math"}), tmp_path / "o"
    )
    assert row["value"] == 1 / 20


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"solution": "B"}, "completion: the model's text is needed"),
        ({"completion": "B"}, "solution: the true answer is needed"),
        ({"completion": "B", "solution": "B", "task": "odd"}, "task: 'odd' is not known"),
        (
            {"completion": "B", "solution": "[1,2,3,4]", "task": "rec"},
            "'mcq' is no reward of task rec; it has accuracy",
        ),
        ({"completion": "B", "solution": "B", "size": [1.5, 2]}, "size: two whole numbers"),
        ({"completion": "B", "solution": [[1, 2, 3, 4]], "labels": []}, "labels: a list is needed"),
    ],
)
def test_rows_that_cannot_be_scored_are_named(tmp_path, row, said):
    with pytest.raises(ValueError, match=rf"a\.jsonl:1: {said}"):
        score_rows("mcq", write(tmp_path / "a.jsonl", row), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command(tmp_path):
    write(tmp_path / "a.jsonl", {"completion": "<answer>yes</answer>", "solution": "yes"})
    from tests.conftest import ROOT

    command = ["vlmr1", "reward", "yes_no", "--input", f"{tmp_path}/a.jsonl", "--output", f"{tmp_path}/out.jsonl"]
    assert "yes_no: 1 rows, mean 1.000" in run(command, ROOT)


def test_a_lists_reward_gives_its_rows_their_task_and_a_rows_own_wins(tmp_path):
    turns = [{"from": "human", "value": "Which?\nA. cat\nB. dog"}, {"from": "gpt", "value": "B"}]
    path = write(tmp_path / "a.jsonl", {"conversations": turns}, {"conversations": turns, "accu_reward_method": "mcq"})
    plain, own = load_jsonl(path, tmp_path, "default").samples
    assert (plain.task, plain.reward, own.task, own.reward) == ("math", "default", "math", "mcq")
    assert [task_of(name) for name in ("iou", "odLength", "default", "all_match", "mcq", "od_ap_lenient", None)] == [
        "rec",
        "ovd",
        "math",
        "gui",
        "math",
        "ovd",
        "rec",
    ]
    with pytest.raises(ValueError, match=r"a\.jsonl:1: accu_reward_method: 'odd' is not known"):
        load_jsonl(path, tmp_path, "odd")
    one = write(tmp_path / "b.jsonl", {"conversations": turns, "task": "gui"})
    assert load_jsonl(one, tmp_path, "default").samples[0].task == "gui"


def test_a_list_reward_that_nothing_weighs_is_refused(tmp_path):
    from vlmr1.cli import main

    path = write(tmp_path / "a.jsonl", {"conversations": [{"value": "q"}, {"value": "B"}]})
    lists = [
        "--data",
        str(path),
        "--images",
        str(tmp_path),
        "--reward-method",
        "mcq",
        "--output",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit, match=r"without accuracy among .* mcq rewards nothing"):
        main(["train", "grpo", "--model", str(tmp_path), *lists, "-S", "rewards={format: 1.0}"])
