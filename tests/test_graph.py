"""dvc.yaml says truly what each stage reads: its code, its parameters, and nothing written twice."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vlmr1.settings import Params, read_yaml

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
# Checking params, starting processes and telling progress shape no result.
PLUMBING = (
    "vlmr1/__init__.py",
    "vlmr1/settings/",
    "vlmr1/progress.py",
    "vlmr1/watching.py",
    "vlmr1/launch.py",
    "vlmr1/joining.py",
)
TOLD = ("compute", "trained", "grpo", "convert.max_pixels")  # what params.training() takes


def file_of(module):
    base = ROOT / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def imported_files(path, seen):
    """Every file of the package that a file imports, directly or through others."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vlmr1"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            found = file_of(name)
            if found and found not in seen:
                seen.add(found)
                imported_files(found, seen)
    return seen


@pytest.mark.parametrize("name", STAGES)
def test_every_line_of_code_that_shapes_a_result_is_a_dependency(name):
    stage = ROOT / f"vlmr1/stages/{name}.py"
    deps = [ROOT / dep for dep in STAGES[name]["deps"]]
    for path in {stage, *imported_files(stage, set())}:
        relative = path.relative_to(ROOT).as_posix()
        if relative.startswith(PLUMBING):
            continue
        assert any(path == dep or dep in path.parents for dep in deps), f"{name} runs {relative}, undeclared"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_its_module_and_its_block_of_params(name):
    assert STAGES[name]["cmd"].split()[:3] == ["python", "-m", f"vlmr1.stages.{name}"]
    blocks = {field.alias or key for key, field in Params.model_fields.items()}
    assert name in blocks
    assert any(param == name for param in STAGES[name]["params"])


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_that_a_stage_reads_is_declared(name):
    declared = set(STAGES[name]["params"])
    for node in ast.walk(ast.parse((ROOT / f"vlmr1/stages/{name}.py").read_text())):
        chain = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr.removesuffix("_"))
            node = node.value
        if not chain or not (isinstance(node, ast.Name) and node.id == "params") or chain[0] == "model_dump":
            continue
        if chain == ["training"]:
            assert set(TOLD) <= declared, f"{name} reads {TOLD}"
            continue
        parts_declared = any(param.startswith(f"{chain[0]}.") for param in declared)
        whole_declared = {chain[0], ".".join(chain[:2])} & declared
        assert whole_declared or (len(chain) == 1 and parts_declared), f"{name} reads params.{'.'.join(chain)}"


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_makes_something_that_git_does_not_hold(name):
    """Else a fresh clone, which has git's files alone, would find the stage done."""
    assert STAGES[name].get("outs")


def test_every_dependency_exists_or_is_made():
    made = {str(out) for stage in STAGES.values() for out in stage.get("outs", [])}
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            if dep.startswith(("vlmr1/", "flows/")):
                assert (ROOT / dep).exists(), f"{name}: {dep}"
    assert len(made) == sum(len(stage.get("outs", [])) for stage in STAGES.values())


def test_git_holds_no_data_and_no_large_file():
    import subprocess

    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [n for n in names if n.startswith("data/") and not n.endswith((".gitignore", ".dvc"))]
    assert all((ROOT / n).stat().st_size < 1_000_000 for n in names if (ROOT / n).is_file())
    assert Path(ROOT / "dvc.lock").name in names
