"""The publish stage over the folders that the other stages leave: what it releases, and how it fails."""

import json
import subprocess

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, default_params, environment
from tests.releases import SCORE, SOME
from vlmr1.errors import RETRY, TransientError, transient
from vlmr1.release import folders
from vlmr1.release.pull import pull
from vlmr1.release.registry import releases
from vlmr1.release.store import open_store
from vlmr1.settings import load_params
from vlmr1.stages import publish, run_stage

ROW = {
    "id": 0,
    "image": "0.png",
    "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "[0, 0, 9, 9]"}],
    "task": "rec",
    "accu_reward_method": "iou",
    "source": "train",
    "split": "train",
    "size": [[28, 28]],
}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value) + "\n")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What a run leaves, as small as it can be; the page is not drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish.page, "render", lambda: None)
    write(tmp_path / "models/grpo/model.safetensors", "weights")
    write(tmp_path / "models/base/origin.json", {"built": "tiny"})
    write(tmp_path / "predictions/grpo/figures.json", {"in_domain": {"greedy": SCORE}})
    write(tmp_path / "data/converted/train/train.jsonl", ROW)
    write(tmp_path / "data/converted/train/pictures.json", {"train": {}})
    write(tmp_path / "data/converted/train/sources.json", {"train": {"role": "train", "images": "images"}})
    for name in ("accuracy", "reward", "examples-grpo"):
        write(tmp_path / f"reports/run/{name}.png", name)
    params(tmp_path)
    return tmp_path


def params(folder, **changes):
    """params.yaml as committed, with changes of some blocks."""
    yaml = YAML()
    found = yaml.load(default_params())
    for block, keys in changes.items():
        found[block].update(keys)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(found, file)


def published(folder):
    """The manifest of the last release, and the folder it was pulled to."""
    publish.main(load_params())
    store = open_store("releases")
    manifest = releases(store, "tiny-rec")[-1].manifest
    landed = folder / "landed" / manifest["version"]
    pull(store, f"tiny-rec@{manifest['version']}", landed, lambda _: None)
    return manifest, {path.relative_to(landed).as_posix() for path in landed.rglob("*") if path.is_file()}


BESIDE = {"README.md", "manifest.json", "pictures/accuracy.png", "pictures/reward.png", "pictures/examples.png"}


def test_a_release_says_what_it_is_and_where_it_was_made(project):
    write(project / "work/records/grpo.json", {"stage": "grpo", "wall_seconds": 9, "made": "x"})  # of another run
    write(project / "metrics/grpo.json", {})
    manifest, files = published(project)
    about, where = manifest["about"], manifest["where"]
    assert files == BESIDE | {"model.safetensors"}
    assert about["rewards"] == {"accuracy": 1.0, "format": 1.0} and about["accuracy"] == ["iou"]
    assert about["scores"] == {"in_domain": SCORE} and about["base"]["kind"] == "built"
    assert set(about["data"]) == {"data/converted/train/pictures.json", "data/converted/train/train.jsonl"}
    assert about["params"]["data"]["root"] == "data/world" and "publish" not in about["params"]
    assert where["commit"] is None and where["hardware"]["training"] is None and where["packages"]["torch"]
    receipt = json.loads((project / "reports/published.json").read_text())
    assert receipt == {"name": "tiny-rec", "version": manifest["version"]}


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_is_published_by_itself_or_merged(project, merge):
    for name in ("adapter_config.json", "base.json"):
        write(project / "models/grpo/adapter" / name, {"base": "models/base", "base_model_name_or_path": "models/base"})
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "vision": False}
    params(project, trained={"lora": lora}, publish={"merge": merge})
    write(project / "models/base/manifest.json", {"name": "bigger", "version": SOME})  # a release, pulled
    manifest, files = published(project)
    assert manifest["about"]["kind"] == ("model" if merge else "adapter")
    assert manifest["about"]["base"]["kind"] == "release" and manifest["about"]["base"]["model"] == "bigger"
    assert files == BESIDE | ({"model.safetensors"} if merge else {"adapter_config.json", "base.json"})
    card = next((project / "landed").glob("*/README.md")).read_text()
    assert ("library_name: peft" in card) != merge and f"bigger@{SOME}" in card
    if not merge:
        base = json.loads(next((project / "landed").glob("*/base.json")).read_text())
        assert base == {
            "base": f"bigger@{SOME}",
            "base_model_name_or_path": "models/base",
            "revision": None,
        }
    assert not (project / "work/release").exists()


@pytest.mark.parametrize(("lora", "merge"), [(None, True), ({"r": 4}, None)])
def test_merging_belongs_to_adapters(project, lora, merge):
    rest = {"alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "vision": False}
    params(project, trained={"lora": lora and lora | rest}, publish={"merge": merge})
    with pytest.raises(ValueError, match=r"publish\.merge"):
        load_params()


def test_a_data_folder_of_this_computer_is_not_named(project):
    root = {"root": str(project / "private"), "sources": {}}
    found = publish._public(load_params().model_copy(update={"data": load_params().data.model_copy(update=root)}))
    assert found["data"]["root"] == "…/private" and str(project) not in json.dumps(found)
    with pytest.raises(ValueError, match=r"data\.root: it was a folder …/private of that computer"):
        folders.find(found, root)
    (project / "private").mkdir()
    folders.find(found, {"data": root})
    assert found["data"]["root"] == str(project / "private")


@pytest.mark.parametrize("fault", [TransientError("the store is away"), MemoryError("no memory")])
def test_a_fault_that_may_pass_is_told_by_its_exit_code(project, fault, capsys):
    def failing(_):
        raise fault

    with pytest.raises(SystemExit) as stop:
        run_stage("publish", failing)
    assert stop.value.code == RETRY == 75 and f"publish: {fault}" in capsys.readouterr().err
    assert not transient(ValueError("x")) and not transient(OSError("x"))


def test_a_store_that_is_away_ends_the_stage_with_that_code(project):
    params(project, publish={"store": "s3://bucket/x"})
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
    keys = {"AWS_ACCESS_KEY_ID": "planted-key", "AWS_SECRET_ACCESS_KEY": "planted-secret"}
    done = subprocess.run(
        ["python", "-m", "vlmr1.stages.publish"],
        cwd=project,
        env=environment(**away, **keys, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == RETRY, done.stderr
    assert "publish: s3://bucket/x" in done.stderr and "Traceback" not in done.stderr
    left = done.stderr + done.stdout + "".join(path.read_text() for path in project.rglob("*.*") if path.is_file())
    assert "planted" not in left
