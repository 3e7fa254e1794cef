"""The base from elsewhere, doctor, and the command's own mistakes."""

import json
import shutil

import pytest

from tests.conftest import ROOT, default_params, run
from vlmr1.cli import main
from vlmr1.doctor import examine
from vlmr1.errors import TransientError
from vlmr1.provenance import folder_digest
from vlmr1.recipes import apply
from vlmr1.settings import Pretrained, load_params
from vlmr1.stages import BASE, warmup


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(default_params())
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolve(model, revision):
    params = load_params()
    origin = {"pretrained": Pretrained(model=str(model), revision=revision), "tiny": None, "training": None}
    warmup.main(params.model_copy(update={"warmup": params.warmup.model_copy(update=origin)}))


def test_a_local_base_is_copied_whole_and_pinned_by_its_hashes(project, tiny):
    (tiny[0] / "pickle.bin").write_bytes(b"never wanted")
    with pytest.raises(ValueError, match=r"pinned by its content, which now is [0-9a-f]{64}"):
        resolve(tiny[0], None)
    resolve(tiny[0], folder_digest(tiny[0]))
    (tiny[0] / "pickle.bin").unlink()
    origin = json.loads((BASE / "origin.json").read_text())
    assert "model.safetensors" in origin["sha256"] and not (BASE / "pickle.bin").exists()

    from transformers import AutoModelForImageTextToText

    assert AutoModelForImageTextToText.from_pretrained(BASE).config.model_type == "qwen2_5_vl"


@pytest.mark.parametrize(
    ("revision", "said"),
    [(None, "full 40-digit commit"), ("a" * 64, "full 40-digit commit"), ("a" * 40, "could not be fetched")],
)
def test_a_hub_base_needs_a_pinned_revision_and_a_network(project, revision, said):
    with pytest.raises(TransientError if "fetched" in said else ValueError, match=said):
        resolve("Qwen/Qwen2.5-VL-3B-Instruct", revision)
    assert not BASE.exists()


def test_a_base_of_an_unknown_family_or_without_safetensors_is_refused(project, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        resolve(other, folder_digest(other))
    (other / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model_type 'bert' is not supported; supported: qwen2_vl, qwen2_5_vl"):
        resolve(other, folder_digest(other))
    assert not BASE.exists()


def test_doctor_finds_nothing_wrong_with_a_fresh_checkout(project):
    assert [f for f in examine() if not f.good] == []


def test_doctor_does_not_look_at_a_world_that_another_data_set_left_undrawn(project):
    (project / "data/world").mkdir(parents=True)
    (project / "data/world/NOT_DRAWN.txt").write_text("")
    assert [f for f in examine() if not f.good] == []


def test_doctor_names_a_missing_list_and_a_bad_key(project):
    run(["vlmr1", "apply", "recipes/real-rec.yaml", "-S", "data.root=nowhere"], project)
    faults = {f.what: f.says for f in examine() if not f.good}
    assert "nowhere/with_images/refcoco_unc_val.json: not found" in faults["data.sources.warmup"]
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("beta: 0.0", "betta: 0.0"))
    faults = [f.says for f in examine() if not f.good]
    assert faults == [
        "grpo.betta: unknown key; did you mean beta?",
        "grpo.beta: missing; add it, every key is said",
    ]


def test_doctor_says_that_a_base_is_not_pinned(project, tmp_path):
    def pin():
        return {f.what: f.says for f in examine(wake_torch=False) if not f.good}.get("warmup.pretrained.revision")

    apply(project / "recipes/rec-3b.yaml", [])
    assert pin() == "Qwen/Qwen2.5-VL-3B-Instruct is not pinned; give its full commit of 40 hex digits"
    apply(None, [f"warmup.pretrained.revision={'a' * 40}"])
    assert pin() is None
    apply(None, [f"warmup.pretrained={{model: {tmp_path}, revision: null}}"])
    assert "its digest of 64 hex digits" in pin()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull", "toy", "--to", "x"], "NAME@VERSION"),
        (["pull", "toy@latest", "--to", "x"], "no release toy@latest"),
        (["summary"], "no run to tell of yet"),
        (["apply", "recipes/none.yaml"], "recipes/none.yaml: no such recipe; there are: recipes/gui-3b"),
        (["apply", "smoke"], "smoke: no such recipe; did you mean recipes/smoke.yaml?"),
        (["apply", "world-gui.yaml"], "world-gui.yaml: no such recipe; did you mean recipes/world-gui.yaml?"),
        (["apply", "recipes/smoke.yaml", "-S", "grpo.steps"], "write KEY=VALUE"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(project, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert said in str(stop.value) and "Traceback" not in str(stop.value)


def test_doctor_counts_rows_against_the_step(project):
    (project / "raw").mkdir()
    row = {"image": "a.png", "width": 9, "height": 9, "normal_caption": "x", "solution": [1, 1, 8, 8]}
    (project / "raw/l.json").write_text(json.dumps([row] * 7))
    spec = {"format": "rec_json", "annotations": "l.json", "images": ".", "frame": "pixels"}
    sources = {role: {**spec, "role": role} for role in ("warmup", "train", "evaluate")}
    own = {"world": None, "data": {"root": "raw", "sources": sources}, "gate": {"improve": ["evaluate"], "keep": {}}}
    (project / "own.yaml").write_text(json.dumps(own))
    run(["vlmr1", "apply", "own.yaml"], project)
    faults = {f.what: f.says for f in examine() if not f.good}
    assert faults == {
        "grpo.prompts_per_step": "7 train rows cannot fill a step of 16; lower it",
        "warmup.training.batch": "7 warmup rows cannot fill a step of 24; lower it",
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("accuracy: 1.0", "iuo: 1.0", "grpo.rewards: 'iuo' is no reward of task rec (did you mean iou?); it has"),
        ("accuracy: 1.0", "math: 1.0", "grpo.rewards: 'math' is no reward of task rec; it has accuracy, format"),
        ("accuracy: 1.0", "nowhere.at_all:f: 1.0", "grpo.rewards: nowhere.at_all:f cannot be imported"),
    ],
)
def test_rewards_that_cannot_be_had_are_found_before_anything_long(project, old, new, said):
    from vlmr1.stages import validate

    text = (project / "params.yaml").read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("rewards: {"))
    assert old in line
    (project / "params.yaml").write_text(text.replace(line, line.replace(old, new)))
    assert said in next(f.says for f in examine(wake_torch=False) if not f.good and f.what == "rewards")
    with pytest.raises(ValueError) as stop:
        validate.main(load_params())
    assert said in str(stop.value) and not (project / "reports").exists()


def test_a_judge_that_nobody_named_is_found_before_anything_long(project, monkeypatch):
    monkeypatch.delenv("VLMR1_JUDGE_URL", raising=False)
    run(["vlmr1", "apply", "recipes/world-math.yaml", "-S", "grpo.rewards={llm: 1.0}"], project)
    fault = next(f.says for f in examine(wake_torch=False) if not f.good)
    assert fault.startswith("reward llm: no judge is named; set VLMR1_JUDGE_URL")
    monkeypatch.setenv("VLMR1_JUDGE_URL", "http://localhost:1/v1")
    monkeypatch.setenv("VLMR1_JUDGE_MODEL", "m")
    assert [f for f in examine(wake_torch=False) if not f.good] == []


def test_a_source_that_asks_for_a_reward_its_task_has_not_is_named(project):
    recipe = (project / "recipes/world-math.yaml").read_text()
    (project / "own.yaml").write_text(
        recipe.replace("reward: auto", "reward: mqc").replace("reward: math", "reward: mqc")
    )
    run(["vlmr1", "apply", "own.yaml"], project)
    faults = {f.what: f.says for f in examine(wake_torch=False) if not f.good}
    assert "reward: 'mqc' is no accuracy reward of task math (did you mean mcq?); one of" in faults["rewards"]


def test_a_stage_names_the_source_whose_list_is_not_there(project):
    from vlmr1.sample import load_sources
    from vlmr1.stages import read_json, validate

    with pytest.raises(FileNotFoundError, match=r"data\.sources\.[a-z_]+: .*/rec/.*: not found; world\.rec\.splits"):
        validate.main(load_params())
    with pytest.raises(FileNotFoundError, match=r"evaluate/sources\.json: not there; `dvc repro` makes it"):
        load_sources(project / "data/converted", "evaluate")
    with pytest.raises(FileNotFoundError, match=r"metrics/grpo\.json: not there; `dvc repro` makes it"):
        read_json(project / "metrics/grpo.json")


def test_what_an_answer_says_is_said_by_its_task():
    from vlmr1.answers import read
    from vlmr1.ask import said

    two = '<answer>[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6, 7, 8], "label": "dog"}]</answer>'
    assert said(read(two), "rec") == ["box [1.0, 2.0, 3.0, 4.0] cat"]
    assert said(read(two), "ovd") == ["box [1.0, 2.0, 3.0, 4.0] cat", "box [5.0, 6.0, 7.0, 8.0] dog"]
    assert said(read("<think>a</think><answer>None</answer>"), "rec") == ["no box: it says that there is none"]
    assert said(read("<think>a</think><answer>12 cm</answer>"), "math") == ["answer 12 cm"]
    (line,) = said(read("<think>a</think><answer>12 cm</answer>"), "rec")
    assert line == "no box: none in the answer; it says '12 cm', --task math reads words"


def test_a_checkpoint_can_be_asked_about_a_picture(trained, tmp_path, capsys):
    checkpoint, source = trained
    picture = source.picture(source.samples[1])
    main(["ask", str(checkpoint), str(picture), "the red square", "--draw", str(tmp_path / "out.png")])
    said = capsys.readouterr().out
    assert said.startswith("<think>") and "box" in said and (tmp_path / "out.png").stat().st_size > 100
    main(["ask", str(checkpoint), str(picture), "How many?", "--task", "math"])
    assert "answer" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such picture"):
        main(["ask", str(checkpoint), "nowhere.png", "x"])
    with pytest.raises(SystemExit, match="no checkpoint folder"):
        main(["ask", str(tmp_path), str(picture), "x"])
