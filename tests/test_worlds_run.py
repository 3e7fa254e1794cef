"""The recipes of the other worlds, with a handful of pictures, through the whole graph. Minutes in all."""

import pytest

from tests.conftest import make_project, run
from vlmr1.sample import read_jsonl
from vlmr1.settings import read_yaml
from vlmr1.stages import read_json

FEW = {
    "warmup": {"training": {"steps": 12, "batch": 8, "warmup_steps": 2, "save_steps": 6}},
    "sft": {"compute_ratio": 2, "save_steps": 2, "warmup_steps": 1},
    "grpo": {"steps": 4, "prompts_per_step": 4, "num_generations": 4, "save_steps": 2, "warmup_steps": 1},
    "report": {"pictures": 2},
}
COUNTED = {"ovd": ("pictures", 24), "math": ("questions", 8), "gui": ("pairs", 24)}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["world-ovd", "world-math", "world-gui"])
def test_a_worlds_recipe_runs_the_whole_graph(tmp_path, recipe):
    project = make_project(tmp_path, f"recipes/{recipe}.yaml")
    params = read_yaml(project / "params.yaml")
    task = next(name for name in COUNTED if params["world"][name])
    key, count = COUNTED[task]
    splits = params["world"][task]["splits"]
    few = {name: split | {key: count} | ({"variants": 3} if task == "math" else {}) for name, split in splits.items()}
    if task == "math":  # rows without a picture are trained on as well
        few |= {name: few[name] | {"forms": ["whole", "text_only"]} for name in ("warmup", "train")}
    few_yaml = project / "few.yaml"
    few_yaml.write_text(repr({"world": {task: {"splits": few}}, **FEW}).replace("None", "null"))
    run(["vlmr1", "apply", "few.yaml", "-S", "evaluate.samples=2"], project)
    run(["dvc", "repro"], project)

    figures = read_json(project / "predictions/grpo/figures.json")
    judged = {"ovd": "mean_ap", "math": "accuracy", "gui": "accuracy"}[task]
    for source, ways in figures.items():
        f = ways["greedy"]
        assert f["task"] == task and f["judged"] == judged and f[f"{judged}_low"] <= f[judged] <= f[f"{judged}_high"]
        assert ways["sampled"]["samples"] == 2 and ways["sampled"]["pass_at_k"] >= ways["sampled"][judged]
        assert len(read_jsonl(project / f"predictions/grpo/{source}-sampled.jsonl")) == 2 * f["n"]
    if task == "math":
        assert figures["in_domain"]["greedy"]["groups"]["n"] == count * len(splits["in_domain"]["forms"])
    if task == "ovd":
        assert figures["in_domain"]["greedy"]["targets"].keys() == {"none", "some"} and "AP" in f
    said = run(["vlmr1", "summary"], project)
    assert "in_domain" in said and "reports/report.html" in said
    card = next(project.glob("releases/*/*/*/README.md")).read_text()
    assert {"ovd": "detection", "math": "diagrams", "gui": "screenshots"}[task] in card
