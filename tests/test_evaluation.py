"""Asking a model: what is asked together, by whom, what a kill leaves, and the figures of every task."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import COMPUTE, default_params, environment, run
from tests.releases import ABOUT, WHERE
from vlmr1.evaluation.asking import ask, by_picture, choose, chunks_of, gathered, one_by_one
from vlmr1.evaluation.intervals import disagreements, mcnemar
from vlmr1.evaluation.set_precision import box_counts, set_precision
from vlmr1.evaluation.summary import summarise
from vlmr1.measures import EXPLAINED, EXTRAS, MEASURES
from vlmr1.sample import Sample, Source, read_jsonl, to_json, write_jsonl
from vlmr1.settings import Asking, Evaluate
from vlmr1.tasks import TASKS
from vlmr1.tasks.ovd import Found
from vlmr1.work import fingerprint_of

ASKING = Asking(seed=1, limit=None, max_new_tokens=8, temperature=1.0, samples=2)
OWN = {
    "batch": 4,
    "max_pixels": None,
    "seed": 1,
    "limit": None,
    "max_new_tokens": 8,
    "temperature": None,
    "samples": None,
}
HERE = {"engine": "in-process", "servers": None, "served_as": None, "timeout": None}
NONE = dict.fromkeys(("max_pixels", "seed", "limit", "max_new_tokens", "temperature", "samples"))


def sample(index, images=("a.png",), task="math", solution="4", group="", kind=""):
    size = ((100, 100),) * len(images)
    return Sample(index, images, f"q{index}", solution, task, TASKS[task].METHODS[0], "s", "t", size, group, kind)


def source(samples, folder=Path(".")):
    return Source("s", "evaluate", folder, tuple(samples))


# Settings.


def test_the_papers_protocol_is_a_name_and_leaves_no_key_ignored():
    settings = Evaluate(**HERE, protocol="paper", batch=4, **NONE)
    assert settings.asking == Asking(seed=42, limit=2000, max_new_tokens=256, temperature=None, samples=None)
    assert settings.asking.ways == (("greedy", 0.0, 1),)
    for key, value in (("seed", 42), ("limit", 9), ("temperature", 1.0)):
        with pytest.raises(ValueError, match=f"{key}: protocol paper says these"):
            Evaluate(**HERE, protocol="paper", batch=4, **{**NONE, key: value})
    with pytest.raises(ValueError, match="seed, max_new_tokens"):
        Evaluate(**HERE, protocol=None, batch=4, **NONE)
    with pytest.raises(ValueError, match="temperature, samples"):
        Evaluate(protocol=None, **{**HERE, **OWN, "samples": 4})
    own = Evaluate(protocol=None, **{**HERE, **OWN, "temperature": 0.9, "samples": 4})
    assert own.asking.ways == (("greedy", 0.0, 1), ("sampled", 0.9, 4))


# What is asked, by whom, once.


def test_the_first_of_a_shuffle_are_those_that_python_shuffles_to_the_front():
    samples = [sample(i) for i in range(50)]
    expected = list(samples)
    random.seed(42)
    random.shuffle(expected)
    assert choose(samples, 20, 42) == expected[:20]
    assert choose(samples, None, 42) == choose(samples, 50, 42) == samples


def test_questions_about_one_picture_stand_side_by_side():
    samples = [sample(i, images) for i, images in enumerate([("a",), ("b",), (), ("a",), ("c", "a"), (), ("b",)])]
    assert [s.id for s in by_picture(samples)] == [0, 3, 1, 6, 2, 4, 5]
    chunks = chunks_of([source(samples)], ASKING, 4)
    sizes = [("greedy", 4), ("greedy", 3), ("sampled", 2), ("sampled", 2), ("sampled", 2), ("sampled", 1)]
    assert [(c.way, len(c.samples)) for c in chunks] == sizes
    assert [c.number for c in chunks] == list(range(6))


def answers(chunk):
    return [
        {"index": s.id, "sample": n, "said": f"{chunk.way} {s.id} {n}"}
        for s in chunk.samples
        for n in range(chunk.completions)
    ]


def test_answers_come_back_in_order_whatever_the_number_of_processes(tmp_path, monkeypatch):
    samples = [sample(i, (f"{i % 3}.png",)) for i in range(11)]
    chunks, seen = chunks_of([source(samples)], ASKING, 4), {}
    for world in (1, 3):
        work = tmp_path / str(world)
        work.mkdir()
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world))
            ask(work, chunks, one_by_one(answers), lambda items: None)
        seen[world] = [(s.name, way, rows) for s, way, rows in gathered(work, chunks, ASKING)]
    assert seen[1] == seen[3]
    (_, greedy, first), (_, sampled, second) = seen[1]
    assert (greedy, sampled) == ("greedy", "sampled")
    assert [row["index"] for row in first] == list(range(11))
    assert [(row["index"], row["sample"]) for row in second] == [(i, n) for i in range(11) for n in range(2)]


def test_a_killed_run_asks_nothing_twice(tmp_path):
    chunks = chunks_of([source([sample(i) for i in range(12)])], ASKING, 4)
    asked = []

    def dies(chunk):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(chunk.number)
        return answers(chunk)

    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, chunks, one_by_one(dies), lambda items: None)
    path = tmp_path / "answers-0.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # the third was being written
    again, told = [], []
    ask(tmp_path, chunks, one_by_one(lambda chunk: again.append(chunk.number) or answers(chunk)), told.append)
    assert asked == [0, 1, 2] and again == list(range(2, len(chunks)))
    assert sum(told) == sum(len(chunk.samples) for chunk in chunks)
    assert [len(rows) for _, _, rows in gathered(tmp_path, chunks, ASKING)] == [12, 24]


# The model.


def test_a_chunk_that_shares_pictures_says_what_each_question_alone_gets(trained):
    from vlmr1.evaluation.engines import InProcess

    checkpoint, known = trained
    samples = [known.samples[i] for i in (0, 1, 2)]
    samples += [Sample(**{**s.__dict__, "id": 100 + s.id, "problem": f"{s.problem} Now."}) for s in samples]
    engine = InProcess(checkpoint, COMPUTE, 112 * 112, 1, 24)
    together = chunks_of([source(samples, known.images)], ASKING, 12)
    alone = chunks_of([source(samples, known.images)], ASKING, 1)
    assert {s.images[0] for s in together[0].samples[:2]} == {samples[0].images[0]}
    rows = {(c.way, r["index"], r["sample"]): r for c in together for r in engine.ask(c)}
    assert rows == {(c.way, r["index"], r["sample"]): r for c in alone for r in engine.ask(c)}
    row = rows["greedy", 101, 0]
    assert row["prompt"] == TASKS["rec"].prompt(samples[4]) and row["truth"] == samples[4].solution
    assert rows["sampled", 0, 0]["completion"] != rows["sampled", 0, 1]["completion"]
    assert engine.about()["chat_template"]


def test_two_processes_leave_the_bytes_of_one(trained, tmp_path):
    checkpoint, known = trained
    found = []
    for launch in ("null", "{nnodes: 1, nproc_per_node: 2, rendezvous: null}"):
        project = tmp_path / launch[:4]
        folder = project / "data/converted/evaluate"
        folder.mkdir(parents=True)
        write_jsonl(folder / "s.jsonl", map(to_json, known.samples))
        (folder / "sources.json").write_text(json.dumps({"s": {"images": str(known.images)}}))
        shutil.copytree(checkpoint, project / "models/base")
        (project / "params.yaml").write_text(
            default_params().replace("launch: null ", f"launch: {launch} ").replace("batch: 100 ", "batch: 5 ")
        )
        run(["python", "-m", "vlmr1.stages.evaluate", "--policy", "base"], project, PYTHONPATH=str(Path.cwd()))
        found.append(fingerprint_of(project / "predictions") | fingerprint_of(project / "metrics"))
        assert not (project / "work/evaluate-base").exists()
        figures = json.loads((project / "predictions/base/figures.json").read_text())
        assert figures["s"]["greedy"]["n"] == 24
        assert [row["index"] for row in read_jsonl(project / "predictions/base/s-greedy.jsonl")] == list(range(24))
    assert found[0] == found[1] and set(found[0]) == {
        "base/figures.json", "base/s-greedy.jsonl", "base/s-sampled.jsonl", "base/settings.json", "evaluate-base.json",
    }  # fmt: skip


def test_a_stage_killed_outright_goes_on_to_the_same_bytes(trained, tmp_path):
    checkpoint, known = trained
    found = []
    for killed in (False, True):
        project = tmp_path / str(killed)
        folder = project / "data/converted/evaluate"
        folder.mkdir(parents=True)
        write_jsonl(folder / "s.jsonl", map(to_json, known.samples[:8]))
        (folder / "sources.json").write_text(json.dumps({"s": {"images": str(known.images)}}))
        shutil.copytree(checkpoint, project / "models/base")
        (project / "params.yaml").write_text(default_params().replace("batch: 100 ", "batch: 1 "))
        command = [sys.executable, "-m", "vlmr1.stages.evaluate", "--policy", "base"]
        answers = project / "work/evaluate-base/answers-0.jsonl"
        if killed:
            started = subprocess.Popen(command, cwd=project, env=environment(PYTHONPATH=str(Path.cwd())))
            while started.poll() is None and not (answers.is_file() and answers.stat().st_size):
                time.sleep(0.01)
            started.kill()
            assert started.wait() == -signal.SIGKILL and 0 < len(answers.read_bytes().splitlines()) < 16
        kept = answers.read_bytes() if killed else b""
        kept = kept[: kept.rfind(b"\n") + 1]
        run(command, project, PYTHONPATH=str(Path.cwd()))
        found.append(fingerprint_of(project / "predictions"))
        assert bool(kept) == killed
    assert found[0] == found[1]


# Figures.


def test_every_task_is_judged_by_a_measure_that_is_named():
    for task in TASKS.values():
        assert MEASURES[task.JUDGED].figure in EXPLAINED and MEASURES[task.JUDGED].figure in EXTRAS
    assert [next(m for m in MEASURES if m in scores) for scores in (("iou", "hit"), ("ap50", "ap"), ("correct",))] == [
        TASKS[name].JUDGED for name in ("rec", "ovd", "math")
    ]


def word(index, correct, number=0):
    return {"index": index, "sample": number, "correct": correct, "parsed": True, "tokens": 3}


def test_groups_kinds_and_constant_answers():
    samples = [sample(i, group=f"g{i // 2}", kind="ab"[i % 2], solution="47"[i > 0]) for i in range(6)]
    f = summarise([word(i, i != 1) for i in range(6)], samples)
    assert f["task"] == "math" and f["judged"] == "accuracy" and f["accuracy"] == pytest.approx(5 / 6)
    assert f["majority"] == pytest.approx(5 / 6)
    assert f["kinds"]["a"]["accuracy"] == 1 and f["kinds"]["b"]["accuracy"] == pytest.approx(2 / 3)
    assert f["groups"]["n"] == 3 and f["groups"]["worst_case"] == pytest.approx(2 / 3)
    assert not {"kinds", "groups"} & summarise([word(i, True) for i in (0, 1)], [sample(0), sample(1)]).keys()


def test_several_completions_of_an_item_are_one_observation():
    rows = [word(i, n == 0 and i < 2, n) for i in range(4) for n in range(4)]
    f = summarise(rows, [sample(i) for i in range(4)])
    assert f["n"] == 4 and f["samples"] == 4
    assert f["accuracy"] == pytest.approx(1 / 8) and f["pass_at_k"] == 0.5
    assert f["pass_at_k_low"] < 0.5 < f["pass_at_k_high"]
    assert f["pass_at_1"] == pytest.approx(1 / 8) and f["pass_at_2"] == pytest.approx(1 / 4)  # one of four is right
    assert f["pass_at_2_low"] < 1 / 4 < f["pass_at_2_high"] and "pass_at_4" not in f  # that is pass_at_k


def test_rows_without_a_target_are_judged_apart():
    samples = [sample(i, task="rec", solution="None" if i < 2 else "[0, 0, 9, 9]") for i in range(6)]
    rows = [{"index": i, "iou": float(i > 2), "hit": i > 2, "parsed": True, "tokens": 3} for i in range(6)]
    f = summarise(rows, samples)
    assert f["acc_0.5"] == 0.5 and f["targets"]["none"]["acc_0.5"] == 0 and f["targets"]["none"]["n"] == 2
    assert f["targets"]["some"]["acc_0.5"] == 0.75


def test_a_source_of_two_tasks_is_refused():
    with pytest.raises(ValueError, match="gui, math; give each task"):
        summarise([word(0, True), word(1, True)], [sample(0), sample(1, task="gui")])


def test_the_sets_precision_is_cocos():
    a, b = Found((0, 0, 10, 10), "a"), Found((20, 20, 40, 40), "b")
    wrong = Found((60, 60, 80, 80), "a")
    assert set_precision([[a], [b]], [[a], [b]]) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert set_precision([[a, wrong], []], [[a], [b]])["AP50"] == pytest.approx(0.5)
    # Pictures count together: a wrong box before the right one in another picture costs half of its name's precision.
    assert set_precision([[wrong], [a]], [[], [a]])["AP"] == pytest.approx(0.5)
    assert set_precision([[Found((0, 0, 9, 9), "c")]], [[a]])["AP"] == 0.0
    assert set_precision([[a]], [[]]) == {}


def test_boxes_too_many_cost_precision():
    a, near, b = Found((0, 0, 10, 10), "a"), Found((0, 0, 10, 9), "a"), Found((0, 0, 10, 10), "b")
    assert box_counts([[near, a, a], [b], []], [[a], [a], [b]]) == pytest.approx(
        {"boxes": 4 / 3, "true_boxes": 1.0, "precision": 1 / 4, "recall": 1 / 3}
    )
    assert box_counts([[]], [[]])["precision"] == 0.0


def detection(index, completion, ap):
    row = {"index": index, "sample": 0, "completion": completion, "input_size": [100, 100], "tokens": 9}
    return row | {"ap": ap, "ap50": ap, "parsed": True}


def test_detections_have_the_sets_precision_beside_the_mean():
    fenced = '```json\n[{"bbox_2d": [0, 0, 50, 50], "label": "a"}]\n```'
    samples = [sample(0, task="ovd", solution=fenced), sample(1, task="ovd", solution="None")]
    rows = [detection(0, f"<answer>{fenced}</answer>", 1.0), detection(1, "<answer>None</answer>", 1.0)]
    f = summarise(rows, samples)
    assert [f[key] for key in ("mean_ap", "AP", "AP50")] == pytest.approx([1, 1, 1])
    assert f["targets"]["none"]["mean_ap"] == 1.0


def test_mcnemar_by_the_book():
    ours, theirs = [1] * 10 + [0] * 2 + [1] * 30, [0] * 10 + [1] * 2 + [1] * 30
    assert disagreements(ours, theirs) == (10, 2) and disagreements([1, 0], [1, 0]) == (0, 0)
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12) and mcnemar(0, 0) == mcnemar(1, 1) == 1.0


# What is shown.


def shown(task, samples, predictions, tmp_path):
    from vlmr1.report.examples import examples

    for name in {name for s in samples for name in s.images}:
        Image.new("RGB", (100, 80), "grey").save(tmp_path / name)
    examples({"s": predictions}, {"s": source(samples, tmp_path)}, 2, tmp_path / f"{task}.out.png")
    with Image.open(tmp_path / f"{task}.out.png") as picture:
        return picture.convert("RGB")


def test_answers_of_every_task_are_drawn(tmp_path):
    box = '```json\n[{"bbox_2d": [10, 10, 50, 50], "label": "a"}]\n```'
    seen = {
        "rec": ({"iou": 0.9, "hit": True, "box": [10, 10, 50, 50]}, "[10, 10, 50, 50]", ("a.png",)),
        "ovd": ({"ap": 0.2, "ap50": 0.5, "boxes": [[10, 10, 50, 50]], "labels": ["b"]}, box, ("a.png",)),
        "math": ({"correct": False, "said": "5"}, "4", ()),
        "gui": ({"correct": True, "said": "No Defect"}, "No Defect", ("a.png", "b.png")),
    }
    for task, (row, truth, images) in seen.items():
        asked = sample(0, images, task, truth)
        row = {"index": 0, "parsed": True, "problem": asked.problem, **row}
        picture = shown(task, [asked], [row], tmp_path)
        assert len(picture.getcolors(picture.width * picture.height)) > 2, task


@pytest.mark.parametrize("task", TASKS)
def test_the_card_of_every_task_tells_its_scores(task):
    from vlmr1.release.card import model_card

    key = MEASURES[TASKS[task].JUDGED].figure
    figures = {"task": task, "judged": key, key: 0.5, f"{key}_low": 0.4, f"{key}_high": 0.6, "n": 9}
    about = ABOUT | {"scores": {"in": figures | {"parse_failure_rate": 0.0}}}
    card = model_card("m", "1", "apache-2.0", about, WHERE, [])
    assert "0.500 [0.400, 0.600]" in card and ("vlmr1 ask" in card) == (task == "rec")
