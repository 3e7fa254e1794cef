"""The whole graph on the smoke profile, as users run it: once plainly, once as a Prefect flow, once killed four times.

All three must end in the same bytes. The three projects run side by side, two at a time.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import environment, free_port, make_project, run
from vlmr1.files import sha256
from vlmr1.release.manifest import MANIFEST
from vlmr1.settings import read_yaml
from vlmr1.stages import read_json
from vlmr1.work import fingerprint_of

TRACKED = (
    "data/world",
    "data/converted",
    "models",
    "logs",
    "predictions",
    "reports/validation",
    "reports/run",
    "metrics",
)
PATIENCE = 240  # seconds for a smoke run on a busy machine


def bytes_of(project: Path) -> dict[str, str]:
    """sha256 of every tracked output and of dvc.lock."""
    found = {"receipt": sha256(project / "reports/published.json")}
    found |= {f"{folder}/{name}": h for folder in TRACKED for name, h in fingerprint_of(project / folder).items()}
    return found | {"dvc.lock": sha256(project / "dvc.lock")}


def killed_run(project: Path) -> list[str]:
    """Start the pipeline again and again, SIGKILL it and all its children when a sign appears, then let it end."""
    signs = {
        "world": lambda: (project / "data/.world.tmp/rec/images").exists(),
        "warmup": lambda: (project / "work/warmup/checkpoint-20/optimizer.pt").exists(),
        "grpo": lambda: (project / "work/grpo/checkpoint-4/whole.json").exists(),
        "publish": lambda: any((project / "releases").glob("*/*/*")),
    }
    killed = []
    for name, sign in signs.items():
        with open(project / f"killed-{name}.log", "w") as log:
            process = subprocess.Popen(
                ["dvc", "repro"], cwd=project, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and not sign() and time.monotonic() < deadline:
                time.sleep(0.002)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed.append(name)
            process.wait()
    return [*killed, run(["dvc", "repro"], project)]


@pytest.fixture(scope="session")
def projects(tmp_path_factory):
    """Futures of the three projects' runs, two at a time."""
    folders = {name: make_project(tmp_path_factory.mktemp(name)) for name in ("plain", "flow", "killed")}
    jobs = {
        "plain": lambda: run(["dvc", "repro"], folders["plain"]),
        "killed": lambda: killed_run(folders["killed"]),
        "flow": lambda: run(
            ["python", "-m", "flows.ui", "--once", "--port", str(free_port())],
            folders["flow"],
            PREFECT_HOME=str(folders["flow"] / ".prefect"),
        ),
    }
    with ThreadPoolExecutor(2) as pool:
        yield {name: (folders[name], pool.submit(job)) for name, job in jobs.items()}


def ended(projects, name):
    folder, future = projects[name]
    return folder, future.result()


def test_the_smoke_run_ends_with_figures_a_report_and_a_release(projects):
    folder, _ = ended(projects, "plain")
    figures = read_json(folder / "predictions/grpo/figures.json")
    assert set(figures) == {"in_domain", "larger", "new_colours", "off_grid", "distractors", "relations", "no_target"}
    assert all(
        f["n"] == 24 and 0 <= f["acc_0.5_low"] <= f["acc_0.5_high"] <= 1 for by in figures.values() for f in by.values()
    )
    page = (folder / "reports/report.html").read_text()
    assert page.count("data:image/png;base64,") == 7
    assert "CPU-seconds, " in page and "times GRPO's" in page.replace("&#39;", "'")
    assert not re.search(r"(src|href|url)\W{1,3}https?:", page)  # opens offline
    assert "SFT, equal compute" in page and "commit " in page
    assert (folder / "reports/report.md").read_text().count("|") > 100


def test_summary_prints_the_table_the_report_and_the_line_that_pulls(projects, tmp_path):
    folder, _ = ended(projects, "plain")
    said = run(["vlmr1", "summary"], folder)
    assert "Acc@0.5" in said and "in_domain" in said and "reports/report.html" in said
    line = next(line.split("pull", 1)[1] for line in said.splitlines() if line.startswith("pull"))
    run([*line.split()[:-1], str(tmp_path / "landed")], folder)

    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "landed")
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert (tmp_path / "landed" / MANIFEST).is_file()


def test_a_second_run_runs_nothing(projects):
    folder, _ = ended(projects, "plain")
    start = time.monotonic()
    said = run(["dvc", "repro"], folder)
    assert "Running stage" not in said and time.monotonic() - start < 15


def test_one_changed_key_reruns_only_what_depends_on_it(projects, tmp_path):
    folder, _ = ended(projects, "plain")
    params = folder / "params.yaml"
    before = params.read_text()
    run(["vlmr1", "apply", "recipes/smoke.yaml", "-S", "report.pictures=2"], folder)
    try:
        assert "report.pictures" in run(["dvc", "params", "diff"], folder).replace("report  ", "report.pictures")
        status = run(["dvc", "status"], folder)
        assert "report:" in status and "evaluate" not in status and "grpo:" not in status
    finally:
        params.write_text(before)


def test_another_evaluation_source_trains_nothing_anew(projects, tmp_path):
    plain, _ = ended(projects, "plain")
    shutil.copytree(plain, tmp_path / "p", symlinks=True, ignore=shutil.ignore_patterns("releases", ".prefect"))
    folder = tmp_path / "p"
    again = "{format: refcoco, role: evaluate, annotations: rec/refs.json, images: rec/images, split: off_grid}"
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("  sources:", "  sources:\n    again: " + again, 1))
    run(["dvc", "repro", "convert"], folder)
    status = run(["dvc", "status"], folder)
    assert "evaluate@grpo:" in status
    assert not any(f"{name}:" in status for name in ("warmup", "sft@samples", "sft@compute", "grpo\n"))
    assert "\ngrpo:" not in status and not status.startswith("grpo:")


def test_the_flow_runs_the_same_graph_to_the_same_bytes(projects):
    plain, _ = ended(projects, "plain")
    flow, said = ended(projects, "flow")
    assert "Finished in state Completed" in said
    ours, theirs = bytes_of(flow), bytes_of(plain)
    ours.pop("dvc.lock"), theirs.pop("dvc.lock")  # its stages stand in the order in which they ended
    assert ours == theirs
    assert read_yaml(flow / "dvc.lock") == read_yaml(plain / "dvc.lock")


def test_killed_in_four_stages_the_run_ends_in_the_same_bytes(projects):
    plain, _ = ended(projects, "plain")
    folder, (*killed, _) = ended(projects, "killed")
    assert killed == ["world", "warmup", "grpo", "publish"]
    assert "continuing after step 4" in (folder / "killed-publish.log").read_text()
    assert bytes_of(folder) == bytes_of(plain)
    releases = {str(p.relative_to(folder)) for p in (folder / "releases").rglob("*") if p.is_file()}
    theirs = {str(p.relative_to(plain)) for p in (plain / "releases").rglob("*") if p.is_file()}

    def plainly(path):  # a card tells its commit, and lies below its own hash; an entry of the log tells its moment
        return re.sub(r"(log/\d+)-[0-9a-f]+", r"\1", re.sub("[0-9a-f]{16}/", "CARD/", path))

    assert set(map(plainly, releases)) == set(map(plainly, theirs))


def test_a_refused_row_stops_the_graph_before_anything_long(projects, tmp_path):
    plain, _ = ended(projects, "plain")
    for name in ("params.yaml", "vlmr1", "data/world"):
        source = plain / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    picture = next((tmp_path / "data/world/rec/images/train").glob("*.png"))
    picture.unlink()
    done = subprocess.run(
        ["python", "-m", "vlmr1.stages.validate"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"train/{picture.name}" in done.stderr and "Traceback" not in done.stderr
