"""Figures of answers in words and single boxes from files: REC, the math benchmarks, GUI, comparisons, refusals."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from vlmr1.cli import main
from vlmr1.evaluation.intervals import mcnemar
from vlmr1.evaluation.score import BENCHMARKS, Choices, score


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def boxed(text):
    return f"<think>so</think><answer>{text}</answer>"


def run(folder, benchmark, annotations, rows, against=None, judge=None):
    other = None if against is None else lines(folder / "q.jsonl", against)
    path = lines(folder / "p.jsonl", rows)
    return score(benchmark, annotations, path, Choices(judge=judge), folder / "out.json", against=other)


@pytest.fixture
def rec_list(tmp_path):
    """Three expressions over pictures of 100 x 80, the last with nothing to find."""
    rows = [
        {"image": "a.jpg", "height": 80, "width": 100, "normal_caption": "cup", "solution": solution}
        for solution in ([10.125, 10, 30, 30], [50, 40, 90, 80], None)
    ]
    path = tmp_path / "rec.json"
    path.write_text(json.dumps(rows))
    return path


def test_rec(tmp_path, rec_list):
    half = {"index": 0, "completion": boxed('{"bbox_2d": [5, 5, 15, 15]}'), "input_size": [40, 50]}
    rows = [half, {"index": 1, "completion": "no idea"}, {"index": 2, "completion": boxed("None")}]
    result = run(tmp_path, "rec", rec_list, rows)
    assert result["acc_0.5"] == pytest.approx(2 / 3) and result["n"] == 3 and result["parse_failures"] == 1
    assert result["mean_iou"] == pytest.approx((19.875 * 20 / 400 + 0 + 1) / 3, abs=1e-12)  # the truth is not rounded
    assert result["acc_0.5_low"] < 2 / 3 < result["acc_0.5_high"] and result["no_target_acc"] == 1
    result = run(tmp_path, "rec", rec_list, rows[:1])
    assert result["acc_0.5"] == pytest.approx(1 / 3) and (result["missing"], result["parse_failures"]) == (2, 0)
    exactly = {"index": 1, "completion": boxed("[50, 40, 90, 60]")}
    assert run(tmp_path, "rec", rec_list, [exactly])["acc_0.5"] == 0  # an IoU of 0.5 is no hit
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"p\.jsonl: no rows in it"):
        score("rec", rec_list, tmp_path / "p.jsonl", Choices(), tmp_path / "out.json")


def test_the_papers_protocol_scores_its_items_alone(tmp_path, rec_list):
    import random

    (row, *_) = json.loads(rec_list.read_text())
    rec_list.write_text(json.dumps([row] * 2500))
    order = list(range(2500))
    random.seed(42)
    random.shuffle(order)
    answers = [{"index": n, "completion": boxed("[10.125, 10, 30, 30]")} for n in sorted(order[:2000])]
    path = lines(tmp_path / "p.jsonl", [*answers[:1500], {"index": order[2000], "completion": "not asked"}])
    result = score("rec", rec_list, path, Choices(protocol="paper"), tmp_path / "out.json")
    assert (result["protocol"], result["n"], result["of"], result["missing"]) == ("paper", 2000, 2500, 500)
    assert result["acc_0.5"] == 0.75 and result["parse_failures"] == 0
    with pytest.raises(ValueError, match="--protocol: belongs to rec, and gui is scored whole; leave it out"):
        score("gui", rec_list, path, Choices(protocol="paper"), tmp_path / "out.json")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"index": 9, "completion": ""}, "index 9 is no question"),
        ({"index": 0, "completion": ""}, "index 0 is answered twice"),
        ({"index": 1}, "no completion"),
        ({"index": 1, "completion": None}, "completion is None where text"),
        ({"index": 1, "completion": "", "input_size": [0, 5]}, "input_size: "),
        ({"id": 1, "completion": ""}, "no index, which names the question"),
        ({"index": True, "completion": ""}, "index True is no question"),
        ([1], "a list where a JSON object is needed"),
    ],
)
def test_malformed_completions_are_refused_by_their_line(tmp_path, rec_list, row, fault):
    with pytest.raises(ValueError, match=rf"p\.jsonl:?( line )?2?: {fault}"):
        run(tmp_path, "rec", rec_list, [{"index": 0, "completion": "x"}, row])


def mathvision(folder):
    rows = [
        {"id": "7", "question": "How much?", "options": [], "answer": "2.5", "level": 1, "subject": "algebra"},
        {"id": "9", "question": "Which?", "options": ["cat", "dog"], "answer": "B", "level": 2, "subject": "algebra"},
        {"id": "12", "question": "Term?", "options": [], "answer": "x+1", "level": 2, "subject": "topology"},
    ]
    return lines(folder / "mathvision.jsonl", [row | {"image": "a.jpg"} for row in rows])


def test_mathvision(tmp_path):
    path = mathvision(tmp_path)
    said = {"7": "2.504", "9": "(B)", "12": "1+x"}
    rows = [{"id": int(id_), "completion": boxed(text)} for id_, text in said.items()]
    result = run(tmp_path, "mathvision", path, rows)
    assert result["accuracy"] == pytest.approx(2 / 3) and result["accuracy_two_decimals"] == 1
    assert result["parts"]["type"]["free"]["n"] == 2 and result["parts"]["subject"]["topology"]["accuracy"] == 1
    assert result["needed_judge"] == [] and result["judge"] == "none"
    rows[0]["completion"], rows[1]["completion"] = boxed("2.5004"), boxed("A or B")
    rows[2]["completion"] = boxed("one more than x")
    result = run(tmp_path, "mathvision", path, rows)
    assert result["accuracy"] == 0 and result["accuracy_two_decimals"] == pytest.approx(1 / 3)
    assert result["needed_judge"] == ["9", "12"]
    by_place = [{"index": n, "completion": boxed(said[i])} for n, i in enumerate(said)]
    assert run(tmp_path, "mathvision", path, by_place)["accuracy"] == pytest.approx(2 / 3)


def test_mathvista(tmp_path):
    common = {"image": "a.jpg", "unit": None, "precision": None, "choices": None, "question_type": "free_form"}
    rows = {
        "1": {"answer": "1.2", "answer_type": "float", "precision": 1},
        "2": {"answer": "1000", "answer_type": "integer", "unit": "g"},
        "3": {"answer": "145°", "answer_type": "text", "question_type": "multi_choice", "choices": ["135°", "145°"]},
        "4": {"answer": "[1, 2]", "answer_type": "list"},
    }
    path = tmp_path / "testmini.json"
    path.write_text(
        json.dumps({id_: common | {"question": "?", "metadata": {"task": "t"}} | r for id_, r in rows.items()})
    )
    right = {"1": "1.20", "2": "1,000 g", "3": "145°", "4": "[1, 2]"}
    wrong = {"1": "1.24", "2": "1000 kg", "3": "A", "4": "[2, 1]"}
    result = run(tmp_path, "mathvista", path, [{"id": i, "completion": boxed(t)} for i, t in right.items()])
    assert result["accuracy"] == 1 and result["parts"]["task"]["t"]["n"] == 4
    result = run(tmp_path, "mathvista", path, [{"id": i, "completion": boxed(t)} for i, t in wrong.items()])
    assert result["accuracy"] == 0 and result["needed_judge"] == ["2", "4"]  # another unit is no other value
    said = {
        "1": "So it is. The answer is 1.2.",
        "2": "The answer is 1000 units",
        "3": "The answer is 145°",
        "4": "[1,2]",
    }
    result = run(tmp_path, "mathvista", path, [{"id": i, "completion": boxed(t)} for i, t in said.items()])
    assert result["needed_judge"] == ["2"] and result["accuracy"] == 0.75


def mathverse(folder):
    rows = [
        {
            "sample_index": str(n),
            "problem_index": "1",
            "problem_version": version,
            "question": "Angle?",
            "image": "a.jpg",
        }
        | {"answer": "40", "question_type": "free-form", "metadata": {"subject": "Plane Geometry"}}
        for n, version in ((1, "Text Dominant"), (2, "Vision Only"))
    ]
    path = folder / "mathverse.json"
    path.write_text(json.dumps(rows))
    return path


def test_mathverse_main_number_is_vision_only(tmp_path):
    rows = [{"id": "1", "completion": boxed("40")}, {"id": "2", "completion": boxed("50")}]
    result = run(tmp_path, "mathverse", mathverse(tmp_path), rows)
    assert (result["main"], result["accuracy"], result["vision_only"], result["vision_only_n"]) == (
        *("vision_only", 0.5),
        *(0, 1),
    )


def dynamath(folder):
    rows = [
        {"question": "Sum?", "answer": str(q + v), "image": "a.jpg", "answer_type": "float", "qid": q, "varid": v}
        for q in (1, 2)
        for v in (1, 2)
    ]
    rows[3] |= {"answer": "rising", "answer_type": "text"}
    return lines(folder / "dynamath.jsonl", rows)


def test_dynamath_counts_the_worst_case(tmp_path):
    said = {"1_1": "2.0009", "1_2": '{"solution": "…", "short answer": "3"}', "2_1": "3", "2_2": "falling"}
    result = run(tmp_path, "dynamath", dynamath(tmp_path), [{"id": i, "completion": boxed(t)} for i, t in said.items()])
    assert (result["worst_case"], result["accuracy"]) == (0.5, 0.75)
    assert (result["questions"], result["variants"], result["n"]) == (2, 2, 4)
    said |= {"1_1": "2.002", "2_2": "It is Rising."}
    result = run(tmp_path, "dynamath", dynamath(tmp_path), [{"id": i, "completion": boxed(t)} for i, t in said.items()])
    assert (result["worst_case"], result["accuracy"]) == (0.5, 0.75)


KINDS = {"CM": "RRR", "CM_loose": "RWR", "IG": "RRW", "IK": "RWW", "RM": "WWR"}  # two steps, then the whole


def wemath(folder):
    rows = []
    for problem in KINDS:
        for part in ("1", "2", "multi"):
            row = {"ID": problem, "key": f"2steps_{part}", "question": "?", "option": "A. 1; B. 2", "answer": "A"}
            rows.append(row | {"image_path": "a.jpg"})
    path = folder / "wemath.json"
    path.write_text(json.dumps(rows))
    return path, rows


def test_wemath_four_way_score(tmp_path):
    path, rows = wemath(tmp_path)
    letters = [{"R": "A", "W": "B"}[sign] for kind in KINDS.values() for sign in kind]
    said = [{"id": f"{row['ID']}_{row['key']}", "completion": boxed(x)} for row, x in zip(rows, letters, strict=True)]
    result = run(tmp_path, "wemath", path, said)
    assert result["strict"] == {
        "CM": 1, "IG": 1, "IK": 1, "RM": 2, "IK_rate": 0.2, "IG_rate": 0.2, "CM_rate": 0.2, "RM_rate": 2 / 3
    }  # fmt: skip
    assert (result["loose"]["CM"], result["loose"]["RM"]) == (2, 1)
    assert result["score_strict"] == pytest.approx((5 - 0.5 * 1 - 2 - 1) / 5)
    assert result["score_loose"] == pytest.approx((5 - 0.5 * 1 - 1 - 1) / 5)
    path.write_text(json.dumps(rows[1:]))
    with pytest.raises(ValueError, match="We-Math problem CM: its parts are 2, multi of 2 steps"):
        run(tmp_path, "wemath", path, said[1:])


def logicvista(folder):
    path = folder / "logicvista.json"
    common = {"imagename": "a.png", "question": "?", "skill": ["inductive", "numerical"]}
    path.write_text(json.dumps({"v1_1": common | {"answer": "B, D"}, "v1_2": common | {"answer": "A"}}))
    return path


def test_logicvista_wants_every_letter(tmp_path):
    said = [{"id": "v1_1", "completion": boxed("The answer is B and D")}, {"id": "v1_2", "completion": boxed("A, B")}]
    result = run(tmp_path, "logicvista", logicvista(tmp_path), said)
    assert result["accuracy"] == 0.5 and result["parts"]["skill"]["numerical"]["n"] == 2


def test_opencompass_is_the_mean_of_six_main_numbers(tmp_path):
    true, said = tmp_path / "a", tmp_path / "p"
    true.mkdir()
    vista = {
        "1": {"question": "?", "image": "a.jpg", "answer": "1", "answer_type": "integer", "question_type": "free_form"}
    }
    (true / "mathvista.json").write_text(json.dumps(vista))
    for make in (mathvision, mathverse, dynamath, wemath, logicvista):
        make(true)
    for name in ("mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista"):
        lines(said / f"{name}.jsonl", [{"index": 0, "completion": boxed("B")}])
    lines(said / "mathvista.jsonl", [{"index": 0, "completion": boxed("1")}])
    lines(said / "mathverse.jsonl", [{"index": 1, "completion": boxed("40")}])
    result = score("opencompass_math", true, said, Choices(), tmp_path / "out.json")
    assert result["six"] == {n: float(n in ("mathvista", "mathverse")) for n in result["six"]}
    assert result["mean"] == pytest.approx(2 / 6) and result["taken"]["dynamath"] == "worst_case"


def test_a_judge_decides_only_what_no_rule_can(tmp_path, monkeypatch):
    asked = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"])
            body = json.dumps({"choices": [{"message": {"content": "1.0"}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("VLMR1_JUDGE_CACHE", str(tmp_path / "judge"))
    rows = [{"id": "7", "completion": boxed("3")}, {"id": "12", "completion": boxed("one more than x")}]
    command = ["score", "mathvision", "--annotations", str(mathvision(tmp_path)), "--json", str(tmp_path / "out.json")]
    command += ["--predictions", str(lines(tmp_path / "p.jsonl", rows)), "--judge-model", "m"]
    main([*command, "--judge", f"http://127.0.0.1:{server.server_port}/v1"])
    server.shutdown()
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["accuracy"] == pytest.approx(1 / 3) and result["judge"]["model"] == "m"
    assert result["needed_judge"] == ["12"] and result["judged_n"] == len(asked) == 1 and "x+1" in asked[0]
    with pytest.raises(SystemExit, match="--judge and --judge-model belong together"):
        main(command)


def gui_list(folder, labels):
    rows = [
        {"id": 61 + n, "image": ["a.png", "b.png"]}
        | {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": label}]}
        for n, label in enumerate(labels)
    ]
    return lines(folder / "gui.jsonl", rows)


def test_gui(tmp_path):
    path = gui_list(tmp_path, ["No Defect", "No Defect", "Operation No Response"])
    said = ["no defect.", "Operation No Response", "it hangs"]
    rows = [{"id": 61 + n, "completion": boxed(text)} for n, text in enumerate(said)]
    result = run(tmp_path, "gui", path, rows)
    assert result["accuracy"] == pytest.approx(1 / 3) and result["unknown_labels"] == 1
    assert result["majority_baseline"] == pytest.approx(2 / 3) and result["majority_label"] == "No Defect"
    assert result["per_class"]["No Defect"]["precision"] == 1 and result["per_class"]["No Defect"]["recall"] == 0.5
    assert result["per_class"]["Operation No Response"]["recall_n"] == 1
    assert run(tmp_path, "gui", path, rows[:2])["missing"] == 1


def test_questions_of_one_name_are_named_by_index(tmp_path):
    rows = [json.loads(line) for line in gui_list(tmp_path, ["No Defect"] * 2).read_text().splitlines()]
    path = lines(tmp_path / "gui.jsonl", [row | {"id": 5} for row in rows])
    assert run(tmp_path, "gui", path, [{"index": 1, "completion": boxed("No Defect")}])["accuracy"] == 0.5
    with pytest.raises(ValueError, match=r"line 1: id 5 is that of several questions; name it by index"):
        run(tmp_path, "gui", path, [{"id": 5, "completion": ""}])


def test_mcnemar_is_the_binomial_test():
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1
    assert mcnemar(5, 0) == mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(9, 2) == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_two_models_on_the_same_questions(tmp_path, capsys):
    path = gui_list(tmp_path, ["No Defect"] * 40)
    good = [{"id": 61 + n, "completion": boxed("No Defect")} for n in range(40)]
    result = run(tmp_path, "gui", path, good, against=good[:20])["against"]
    assert (result["only_ours"], result["only_theirs"], result["noise"]) == (20, 0, False)
    assert result["p"] == pytest.approx(2 / 2**20) and "more than noise" in result["says"]
    result = run(tmp_path, "gui", path, good, against=good[:38])["against"]
    assert result["noise"] and result["p"] == 0.5 and "may well be noise" in result["says"]
    command = ["score", "gui", "--annotations", str(path), "--predictions", str(tmp_path / "p.jsonl")]
    main([*command, "--against", str(tmp_path / "q.jsonl"), "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert "accuracy                     1.0000  [0.9124, 1.0000]" in printed and "noise" in printed


def test_the_verb_refuses_in_one_sentence(tmp_path):
    path = gui_list(tmp_path, ["No Defect"])
    common = ["--annotations", str(path), "--predictions", str(path), "--json", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit, match=rf"no such benchmark; one of {', '.join(BENCHMARKS)}"):
        main(["score", "magic", *common])
    with pytest.raises(SystemExit, match="--scenario: gui has none; leave it out"):
        main(["score", "gui", "--scenario", "intra", *common])
    with pytest.raises(SystemExit, match=r"line 1: no completion|no id or index"):
        main(["score", "gui", *common])
    assert not (tmp_path / "out.json").exists()
