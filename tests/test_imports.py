"""Who may import whom, and what importing costs."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "accelerate", "deepspeed", "peft", "vllm", "sympy"}
LIGHT = [
    "vlmr1.answers",
    "vlmr1.boxes",
    "vlmr1.sample",
    "vlmr1.rows",
    "vlmr1.tasks",
    "vlmr1.rewards.detection",
    "vlmr1.rewards.judge",
    "vlmr1.rewards.shape",
    "vlmr1.rewards.text",
    "vlmr1.grpo.scoring",
    "vlmr1.scoring",
    "vlmr1.sources",
    "vlmr1.world.dataset",
    "vlmr1.validation.table",
    "vlmr1.convert",
    "vlmr1.evaluation.asking",
    "vlmr1.evaluation.summary",
    "vlmr1.evaluation.intervals",
    "vlmr1.evaluation.score",
    "vlmr1.release.publish",
    "vlmr1.release.pull",
    "vlmr1.report.facts",
    "vlmr1.cli",
    "vlmr1.playground.server",
    "vlmr1.serving.client",
    "vlmr1.settings",
    "vlmr1.recipes",
]
# A room may import what stands below it, never above.
FLOORS = [
    {
        "errors",
        "files",
        "boxes",
        "pictures",
        "settings",
        "progress",
        "device",
        "launch",
        "joining",
        "watching",
        "products",
        "scrubbed",
        "under_way",
        "unpickled",
    }
    | {"interruptions", "stopping"},
    {"answers", "sample", "rows", "policies", "measures", "serving"},
    {"rewards", "work", "provenance"},
    {"tasks"},
    {"sources", "world", "conversion", "release", "recipes", "families"},
    {"validation", "convert"},
    {"prompts", "as_trained", "adapters", "arguments"},
    {"quantized", "plan"},
    {"grpo", "training", "sft", "train", "doctor", "scoring"},
    {"evaluation"},
    {"report", "gate"},
    {"stages", "ask", "evaluate", "playground", "serve", "cli"},
]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", sorted((ROOT / "vlmr1").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_upward(path):
    parts = path.relative_to(ROOT / "vlmr1").with_suffix("").parts
    if parts == ("__init__",):
        return
    for name in imported(path):
        if name.startswith("vlmr1."):
            assert floor(name.split(".")[1]) <= floor(parts[0]), f"{path} imports {name}"
        assert not name.startswith("flows")


def test_stages_and_package_know_no_prefect():
    for path in (ROOT / "vlmr1").rglob("*.py"):
        assert not any(name.split(".")[0] == "prefect" for name in imported(path)), path


def test_flows_import_no_torch():
    code = "import sys, flows.pipeline, flows.ui; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_rewards_metrics_and_releases_import_without_torch():
    code = f"import sys, {', '.join(LIGHT)}; found = {HEAVY!r} & set(sys.modules); sys.exit(bool(found))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("code", ["import vlmr1", "from vlmr1.cli import main; main(['--help'])"])
def test_the_package_and_its_command_start_at_once(code):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.4


def test_no_file_is_long():
    for folder in ("vlmr1", "flows", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def test_the_engine_and_its_benchmark_need_none_of_the_pipelines_packages():
    """So that they run on a GPU machine with torch, transformers and accelerate alone."""
    code = """
import sys
BARRED = {"pydantic", "ruamel", "dvc", "prefect"}
class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BARRED:
            raise ImportError(name)
sys.meta_path.insert(0, Bar())
import benchmarks.peers, benchmarks.workload, vlmr1.grpo.losses, vlmr1.grpo.policy, vlmr1.grpo.rollout
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
