"""The default run keeps its promises: it learns, in the time and memory the README names. Minutes long."""

import json
import time

import pytest

from tests.conftest import make_project, run


@pytest.mark.slow
def test_the_default_run_learns_within_ten_minutes_and_four_gigabytes(tmp_path):
    project = make_project(tmp_path, recipe=None)
    start = time.monotonic()
    run(["dvc", "repro"], project)
    assert time.monotonic() - start < 600
    kept = [path for path in (project / "work/records").glob("*.json") if path.name != "run.json"]
    records = [json.loads(path.read_text()) for path in kept]
    assert len(records) == 13 and max(r["peak_memory_mb"] for r in records) < 4000

    training = json.loads((project / "metrics/grpo.json").read_text())
    assert training["reward_gain_in_standard_errors"] > 4
    figures = {p: json.loads((project / f"predictions/{p}/figures.json").read_text()) for p in ("base", "grpo")}
    before, after = (figures[p]["in_domain"]["greedy"] for p in ("base", "grpo"))
    assert after["acc_0.5_low"] > before["acc_0.5_high"]
