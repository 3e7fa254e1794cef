"""The GRPO benchmark: what it does not say, its sums and table, and a whole comparison on the smallest of cases."""

import io
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("torch")

from benchmarks import grpo_step, peers, workload
from benchmarks.workload import Case, question


def steps(*totals):
    """A system's reports: one that warms up, the timed, one of memory."""
    phases = {"rollout": 1.0, "policy": 0.5}
    timed = [{"order": "step", "total": total, "phases": phases, "peak": None} for total in totals]
    return [*timed, {"order": "memory", "total": 99.0, "phases": phases, "peak": 2_000_000}]


def test_a_pictures_size_has_the_tokens_asked_for():
    assert Case(256, 64, 8, 1).picture == (448, 448)
    assert Case(1024, 64, 8, 1).picture == (896, 896)
    assert Case(6, 64, 8, 1).picture == (84, 56)


def test_questions_differ_and_repeat():
    case = Case(4, 64, 8, 1)
    texts = {question(case, n)[0] for n in range(8)}
    assert len(texts) == 8 and question(case, 3)[0] in texts
    assert question(case, 3)[1].tobytes() == question(case, 3)[1].tobytes() != question(case, 4)[1].tobytes()


def test_the_first_round_and_those_of_memory_are_not_timed():
    figures = grpo_step.summary(steps(50.0, 2.0, 4.0, 3.0))
    assert (figures["total"], figures["least"], figures["most"], figures["peak"]) == (3.0, 2.0, 4.0, 2_000_000)
    assert figures["phases"]["rollout"] == 1.0 and figures["phases"]["rest"] == 1.5


def test_the_table_gives_ratios_to_ours():
    figures = {"ours": grpo_step.summary(steps(9.0, 2.0)), "trl": grpo_step.summary(steps(9.0, 8.0))}
    header, _, ours, trl = grpo_step.markdown(figures).splitlines()
    assert header.count("|") == ours.count("|") == trl.count("|")
    assert "| 8.00 (8.00-8.00) | 4.00 | 2 | 1.00 |" in trl


def test_a_missing_trl_is_said_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(grpo_step.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["grpo_step", "--against", "trl", "--json", str(tmp_path / "step.json")])
    with pytest.raises(SystemExit, match="TRL is not installed here: pip install"):
        grpo_step.main()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("more", [{}, {"freeze_vision": True}, {"checkpointing": True}, {"beta": 0.0}])
def test_our_steps(monkeypatch, tmp_path, shared, more):
    monkeypatch.setitem(workload.SIZES, "bench", {})  # the smallest of models
    case, reports = Case(4, 5, 3, 2, **more), io.StringIO()
    workload.build_checkpoint(tmp_path, case.size)
    peers.run_own(workload.Meter("cpu", io.StringIO("step\nstep\nmemory\n"), reports), tmp_path, case, shared)
    done = [json.loads(line) for line in reports.getvalue().splitlines()]
    assert [one["completion"] for one in done] == [[5] * 6] * 3
    assert [one["peak"] is None for one in done] == [True, True, False]
    assert all(("reference" in one["phases"]) == (case.beta > 0) for one in done)
    assert all(0 < sum(one["phases"].values()) <= one["total"] for one in done)


def compare(path, *arguments):
    """The report of a comparison of a tenth of a second a step."""
    case = ["--visual-tokens", "4", "--completion", "3", "--group", "2", "--prompts", "2", "--rounds", "1"]
    command = [sys.executable, "-m", "benchmarks.grpo_step", "--against", *arguments, *case, "--json", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert path.with_suffix(".md").read_text() in done.stdout
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_whole_comparison(tmp_path):
    report = compare(tmp_path / "step.json", "naive,ours-trainer")
    assert report["case"]["group"] == 2 and report["versions"].keys() >= {"python", "torch", "transformers"}
    for system in ("ours", "ours-trainer", "naive"):
        figures = report["figures"][system]
        assert [step["completion"] for step in figures["steps"]] == [[3] * 4] * 4
        assert figures["total"] > 0 and figures["peak"] > 0 and figures["phases"]["policy"] > 0
    assert report["figures"]["ours"]["phases"]["read"] > report["figures"]["naive"]["phases"]["read"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--freeze-vision"], ["--checkpointing"], ["--beta", "0"]])
def test_trl_does_the_same_work(tmp_path, options):
    pytest.importorskip("trl")
    report = compare(tmp_path / "step.json", "trl", "trl-compact", *options)
    assert report["figures"].keys() == {"ours", "trl", "trl-compact"}
    for system in report["figures"].values():
        assert system["phases"]["rollout"] > 0 and system["phases"]["policy"] > 0
        assert (system["phases"]["reference"] == 0) == ("--beta" in options)
