"""`vlmr1 reward NAME`, and which reward a list's rows are given."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from vlmr1.scoring import score_rows, summary
from vlmr1.train import load_jsonl, task_of

BOX_A = '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]'
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
        ({"Completion": "x", "solution": "B"}, "no completion; the row has 'Completion', 'solution'"),
        ({"completion": "B"}, "no solution or truth; the row has 'completion'; write"),
        ({"completion": 1, "solution": "B"}, "completion: the model's text is needed, it is 1"),
        ({"completion": "B", "solution": "B", "task": ["math"]}, "task: text is needed"),
        ({"completion": "B", "solution": "B", "value": 1}, "value: the score's own field would overwrite it"),
        ({"completion": "B", "solution": "B", "note": {"a": "\ud800"}}, "'note': holds half a character"),
        ({"completion": "\ud800", "solution": "B"}, "'completion': holds half a character"),
        ({"completion": "B", "solution": "B", "inputsize": [1, 2]}, "no field .*'inputsize'; did you mean input_size"),
        ({"completion": "B", "solution": ""}, "the solution is empty; give the true answer; read as task math"),
        ({"completion": "B", "solution": "B", "image": [1]}, "image: a file's name or a list of names is needed"),
        *(
            ({"completion": "B", "solution": "B", "tokens": tokens}, "tokens: a whole number from 0 on is needed")
            for tokens in ("many", [1, 2], float("nan"), -5, 1.5, True)
        ),
        *(
            (
                {"completion": "B", "solution": truth},
                "solution: text or a number is needed, it is .*; read as task math",
            )
            for truth in (None, True, {"a": 1}, float("inf"), [None], [])
        ),
        ({"completion": "B", "solution": "B", "task": "odd"}, "task: 'odd' is not known"),
        (
            {"completion": "B", "solution": "[1,2,3,4]", "task": "rec"},
            "'mcq' is no reward of task rec; it has accuracy",
        ),
        ({"completion": "B", "solution": "B", "size": [1.5, 2]}, "size: two whole numbers"),
        ({"completion": "B", "solution": "B", "labels": []}, "labels: belong to a solution of boxes"),
        (
            {"completion": "B", "solution": [[1, 2, 3, 4]], "labels": [], "task": "ovd"},
            "'mcq' is no reward of task ovd",
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_named(tmp_path, row, said):
    with pytest.raises(ValueError, match=rf"a\.jsonl:1: {said}"):
        score_rows("mcq", write(tmp_path / "a.jsonl", row), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "truth", "said"),
    [
        ("default", "<answer> 7 </answer>", "7"),
        ("math", "<answer>\\frac{1}{2}</answer>", "0.5"),
        ("all_match", "<answer> No Defect </answer>", "no defect"),
        ("numeric", "<answer> 7 </answer>", "7.0"),
        ("mcq", "<answer>B</answer>", "(B)"),
        ("yes_no", "<answer>yes</answer>", "Yes."),
        ("iou", "<answer> [1, 2, 3, 4] </answer>", "[1,2,3,4]"),
        ("iou", "```json\n[1, 2, 3, 4]\n```", "[1,2,3,4]"),
        ("iou", "null", "None"),
        ("od_ap50", '<answer>```json [{"bbox_2d": [1, 2, 3, 4], "label": "a"}] ```</answer>', BOX_A),
        ("length", "<answer> 7 </answer>", "7"),
    ],
)
def test_a_truth_may_stand_in_tags_as_in_the_originals_lists(tmp_path, name, truth, said):
    row = {"completion": f"<answer>{said}</answer>", "solution": truth}
    (scored,) = score_rows(name, write(tmp_path / "a.jsonl", row), tmp_path / "out.jsonl")
    assert scored["value"] > 0.99


def test_predictions_of_the_evaluate_stage_are_rows(tmp_path, trained):
    from tests.conftest import COMPUTE
    from vlmr1.evaluation.asking import Chunk
    from vlmr1.evaluation.engines import InProcess

    checkpoint, source = trained
    engine = InProcess(checkpoint, COMPUTE, 56 * 56, 1, 24)  # smaller than the pictures are
    predicted = engine.ask(Chunk(0, source, "greedy", 0.0, 1, source.samples[:4]))
    scored = score_rows("iou", write(tmp_path / "a.jsonl", *predicted), tmp_path / "out.jsonl")
    assert [row["value"] for row in scored] == pytest.approx([row["iou"] for row in predicted])
    assert predicted[1]["input_size"] != predicted[1]["size"][0][::-1]
    without = [{key: value for key, value in row.items() if key != "size"} for row in predicted]
    with pytest.raises(ValueError, match=r"a\.jsonl:1: input_size needs size"):
        score_rows("iou", write(tmp_path / "a.jsonl", *without), tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("name", "row", "task"),
    [
        ("format", {"solution": [1, 2, 3, 4]}, "rec"),
        ("format", {"solution": "None"}, "rec"),
        ("format", {"solution": "7"}, "math"),
        ("repetition", {"solution": '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]'}, "ovd"),
        ("accuracy", {"solution": [[1, 2, 3, 4]], "labels": ["a"]}, "ovd"),
        ("length", {"solution": "No Defect"}, "gui"),
        ("all_match", {"solution": "No Defect"}, "gui"),
        ("length", {"solution": "[1, 2, 3, 4]", "accu_reward_method": "math"}, "math"),
        ("tests.test_scoring:shorter", {"solution": "[1, 2, 3, 4]"}, "rec"),
    ],
)
def test_where_several_tasks_have_the_reward_the_solution_tells_which(tmp_path, name, row, task):
    path = write(tmp_path / "a.jsonl", row | {"completion": "x"})
    assert score_rows(name, path, tmp_path / "out.jsonl")[0]["task"] == task


def test_faults_name_line_and_task_and_what_was_asked_for(tmp_path):
    def fault(name, *rows):
        (tmp_path / "a.jsonl").write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(ValueError) as stop:
            score_rows(name, tmp_path / "a.jsonl", tmp_path / "out.jsonl")
        return str(stop.value).removeprefix(f"{tmp_path}/")

    good = {"completion": "x", "solution": "7"}
    assert fault("numeric", good, {**good, "solution": "cat", "id": 90}) == (
        "a.jsonl:3: solution 'cat' is nothing that reward numeric can compare an answer with; mend it, or ask for"
        ' another reward; read as task math, add "task" if it is another (rec, ovd, math, gui)'
    )
    assert "a.jsonl:2: solution '[4, 3, 2, 1]' is empty" in fault("format", {**good, "solution": [4, 3, 2, 1]})
    assert fault("numeric", {**good, "task": "math", "solution": "cat"}).endswith("another reward")
    assert fault("iuo", good).startswith("iuo: no such reward (did you mean iou?); there are accuracy, format, length,")
    assert fault("tests.nowhere:f", good).startswith("NAME: tests.nowhere:f cannot be imported")
    assert fault("iou").endswith("a.jsonl: no rows in it")


def test_the_documented_rows_are_rows(tmp_path):
    block = (ROOT / "docs/rewards.md").read_text().split("```json\n")[1].split("```")[0]
    for name, line in zip(("iou", "odLength", "mcq", "all_match"), block.splitlines(), strict=True):
        (tmp_path / "a.jsonl").write_text(line + "\n")
        (row,) = score_rows(name, tmp_path / "a.jsonl", tmp_path / "out.jsonl")
        assert row["value"] == 1 and row["task"] == json.loads(line)["task"]


def test_rows_are_not_overwritten_by_their_scores(tmp_path):
    path = write(tmp_path / "a.jsonl", {"completion": "x", "solution": "7"})
    kept = path.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(path)
    for output in (path, tmp_path / "link.jsonl", tmp_path / "." / "a.jsonl"):
        with pytest.raises(ValueError, match=r"--output .*: is the file of --input, which it would overwrite"):
            score_rows("math", path, output)
    for output in (tmp_path, Path("."), Path("/")):
        with pytest.raises(ValueError, match=r"--output .*: a folder; name a file in it"):
            score_rows("math", path, output)
    assert path.read_bytes() == kept


def test_the_command(tmp_path):
    write(tmp_path / "a.jsonl", {"completion": "<answer>yes</answer>", "solution": "yes"})
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
