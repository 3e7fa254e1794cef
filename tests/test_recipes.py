"""A recipe for each published run: its header tells all, its settings are the original's, and its graph can be run."""

import json
import re
import subprocess
import sys

import pytest
from dvc.utils.serialize import load_yaml

from tests.conftest import ROOT, default_params, environment, make_project
from vlmr1.plan import Asked, params_with, plan_of
from vlmr1.plan.hours import Speed, hours
from vlmr1.recipes import apply

PUBLISHED = {  # recipe: (model, rate, beta, steps, completions a step), as the paper and the scripts have them
    "rec-3b": ("Qwen2.5-VL-3B-Instruct", 1e-6, 0.04, 600, 128),
    "rec-3b-lora": ("Qwen2.5-VL-3B-Instruct", 1e-5, 0.04, 600, 128),
    "rec-internvl-4b": ("InternVL3_5-4B-HF", 1e-6, 0.04, 600, 128),
    "ovd-3b": ("Qwen2.5-VL-3B-Instruct", 1e-6, 0.0, 1322, 128),
    "ovd-3b-ap50": ("Qwen2.5-VL-3B-Instruct", 1e-6, 0.0, 1322, 128),
    "ovd-7b": ("Qwen2.5-VL-7B-Instruct", 1e-6, 0.0, 1322, 128),
    "ovd-32b": ("Qwen2.5-VL-32B-Instruct", 1e-6, 0.0, 1322, 128),
    "math-3b": ("Qwen2.5-VL-3B-Instruct", 1e-6, 0.04, 500, 128),
    "gui-3b": ("Qwen2.5-VL-3B-Instruct", 1e-6, 0.04, 1200, 32),
    "gui-7b": ("Qwen2.5-VL-7B-Instruct", 1e-6, 0.04, 1200, 32),
}
HEADS = ("Data", "Hardware", "Hours", "Published", "SFT twin", "Command")


def path(name):
    return ROOT / "recipes" / f"{name}.yaml"


@pytest.fixture
def params(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(default_params())
    return file


def header(name):
    """The comment before the first key, each item on one line."""
    lines = []
    for line in path(name).read_text().splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("#   ") and lines:
            lines[-1] += f" {line[1:].strip()}"
        else:
            lines.append(line[1:].strip())
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines if line.split(":")[0] in HEADS}


def test_every_recipe_is_of_the_embedded_worlds_or_of_a_published_run():
    others = {"smoke", "real-rec", "over-vllm"}
    named = {p.stem for p in (ROOT / "recipes").glob("*.yaml") if not p.stem.startswith("world-")}
    assert named - others == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_are_the_published_ones(params, name):
    chosen = params_with(path(name), [], params)
    model, rate, beta, steps, completions = PUBLISHED[name]
    assert chosen.warmup.pretrained.model.endswith(f"/{model}")
    grpo = chosen.grpo
    assert (grpo.learning_rate, grpo.beta, grpo.steps) == (rate, beta, steps)
    assert grpo.prompts_per_step * grpo.num_generations == completions and grpo.num_generations == 8
    assert (grpo.num_iterations, grpo.temperature, grpo.max_completion_length) == (1, 0.9, 2048)
    assert grpo.rewards == {"accuracy": 1.0, "format": 1.0}
    assert (grpo.warmup_steps, grpo.weight_decay, grpo.adam_beta2, grpo.max_grad_norm) == (0, 0.0, 0.999, 1.0)
    assert chosen.sft.learning_rate == rate and chosen.sft.lr_scheduler_type == grpo.lr_scheduler_type  # its twin
    stage = {"rec-3b-lora": 2, "rec-internvl-4b": 2}.get(name, 3)
    assert chosen.compute.deepspeed.stage == stage and chosen.compute.activation_checkpointing
    assert chosen.compute.launch.nnodes == (2 if name == "ovd-32b" else 1)
    assert (chosen.evaluate.protocol == "paper") == (name in ("rec-3b", "rec-3b-lora"))
    if chosen.evaluate.protocol is None:  # else completions that may be 2,048 tokens in training are cut
        assert chosen.evaluate.max_new_tokens == (1024 if name == "rec-internvl-4b" else 2048)  # as the original's
    assert (chosen.trained.lora is not None) == name.endswith("lora")
    rewards = {s.reward for s in chosen.data.sources.values() if s.role == "train" and hasattr(s, "reward")}
    kind = {"rec": "iou", "ovd": "odLength", "math": "math"}.get(name.split("-")[0])
    assert rewards == ({"od_ap50_lenient"} if name.endswith("ap50") else {kind} if kind else set())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_header_tells_data_hardware_hours_figures_twin_and_command(params, name):
    said = header(name)
    assert set(said) == set(HEADS), said
    text = path(name).read_text()
    assert all(len(line) <= 120 for line in text.splitlines() if line.startswith("#"))
    chosen = params_with(path(name), [], params)
    assert f"{chosen.data.root} with" in said["Data"] and f"dvc add {chosen.data.root}" in said["Data"]
    assert f"vlmr1 apply recipes/{name}.yaml" in said["Command"] and "not run by this project" in said["Hardware"]
    nodes, gpus = re.match(r"(?:(\d+) nodes of )?(\d+) GPUs of 80 GB", said["Hardware"]).groups()
    assert int(nodes or 1) * int(gpus) == chosen.compute.processes
    plan = plan_of(chosen, Asked())
    assert plan.memory.total <= 80e9
    held = re.search(r"(\d+) GB of host memory each", said["Hardware"])  # of what is offloaded
    assert round(plan.memory.host / 1e9) == (int(held[1]) if held else 0)
    told = float(re.match(r"([\d.]+) of grpo at least, by `vlmr1 doctor --plan", said["Hours"])[1])
    assert told == round(hours(plan.shape, plan.chosen, plan.load, Speed()), 1)


def test_what_differs_from_the_original_is_told(params):
    """A second `dvc repro` in one folder is refused by DVC; LISA's pictures are larger than REC's training has."""
    nodes = path("ovd-32b").read_text()
    assert "Run the command on both nodes" not in nodes and "on the second `vlmr1 join` follows" in nodes
    for name in ("rec-3b", "rec-3b-lora"):
        assert "leaves LISA's pictures whole" in path(name).read_text()
        chosen = params_with(path(name), [], params)
        assert chosen.asked_pixels == 12_845_056 and chosen.convert.max_pixels == 401_408


def test_a_recipe_takes_no_key_that_nothing_reads(params, tmp_path):
    text = path("rec-3b").read_text()
    for wrong, sentence in (("grpo:\n  max_promt_length: 512", "max_promt_length"), ("grpos:\n  a: 1\ngrpo:", "grpos")):
        recipe = tmp_path / "r.yaml"
        recipe.write_text(text.replace("grpo:", wrong, 1))
        with pytest.raises(ValueError, match=f"{sentence}: params.yaml has no such key"):
            apply(recipe, [], params)


GRAPHS = """
import json, sys
from pathlib import Path
from dvc.repo import Repo
from vlmr1.recipes import apply
from vlmr1.settings import load_params

default, found = Path("params.yaml").read_text(), {}
for name in sys.argv[1:]:
    Path("params.yaml").write_text(default)
    apply(Path(f"recipes/{name}.yaml"), [])
    root = Path(load_params().data.root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "list").write_text("in place of the data")
    repo = Repo()
    for path in {out.fs_path for stage in repo.index.stages for out in stage.outs} - {str(root.resolve())}:
        Path(path).mkdir(parents=True, exist_ok=True)  # what a dry run does not make and the next stage looks for
    done = repo.reproduce(dry=True, force=True)
    deps = {dep.def_path for stage in repo.index.stages for dep in stage.deps}
    found[name] = {"stages": [stage.addressing for stage in done], "root": str(root) in deps}
    repo.close()
print(json.dumps(found))
"""


def test_the_graph_of_every_recipe_can_be_run(tmp_path):
    """DVC resolves each graph and goes through it dry, all in one process."""
    project = make_project(tmp_path, recipe=None)
    done = subprocess.run(
        [sys.executable, "-c", GRAPHS, *PUBLISHED], cwd=project, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    graphs = json.loads(done.stdout.splitlines()[-1])
    twins = ["sft@samples", "sft@compute"]
    for name in PUBLISHED:
        stages = graphs[name]["stages"]
        assert graphs[name]["root"], f"{name}: no stage reads its data"
        assert {*twins, "validate", "convert", "warmup", "grpo", "evaluate@grpo", "report", "publish"} <= set(stages)
        assert stages.index("warmup") < stages.index("grpo") < stages.index("evaluate@grpo") < stages.index("publish")


def test_dvc_reads_the_addresses_that_apply_writes(params):
    apply(path("over-vllm"), ["evaluate.engine=http", "evaluate.servers=[http://localhost:8000/v1]"], params)
    found = load_yaml(str(params))
    assert found["grpo"]["rollout"]["servers"] == found["evaluate"]["servers"] == ["http://localhost:8000/v1"]
