"""Planned memory against measured, sizes against real models, and what is said of a run that does not fit."""

import pytest

from benchmarks.memory import SETTINGS, compare, write_case
from tests.conftest import ROOT, default_params
from vlmr1.cli import main
from vlmr1.plan import Asked, Plan, bytes_of, changes, params_with, plan_of
from vlmr1.plan.hours import SAID, Speed, hours, seconds_a_step
from vlmr1.plan.shapes import PUBLISHED, shape_of
from vlmr1.settings import load_params

QUICK = "full"
NEAR = 0.2  # of the measured peak


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    write_case(folder)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(default_params())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", [n if n == QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS], ids=str
)
def test_the_planned_peak_is_near_the_measured(case, name):
    row = compare(case, SETTINGS[name])
    assert row["planned"] == pytest.approx(row["measured"], rel=NEAR), row


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("qwen2_vl", {}),
        ("qwen2_5_vl", {"tie_word_embeddings": True}),
        ("internvl", {"tile": 56, "patch": 7}),
        ("internvl", {"text_type": "qwen3", "tie_word_embeddings": True}),
    ],
)
def test_weights_are_counted_as_the_model_has_them(tmp_path, kind, sizes):
    from transformers import AutoModelForImageTextToText

    from benchmarks.memory import SIZES
    from vlmr1.families.random import write_random

    write_random(kind, tmp_path, **{**SIZES, **sizes})
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert shape_of(str(tmp_path)).weights == pytest.approx(sum(p.numel() for p in model.parameters()), rel=1e-3)


def test_published_sizes_add_up_to_the_published_totals():
    """Billions of weights that the hub counts in the makers' own files."""
    totals = {name: round(shape.weights / 1e9, 2) for name, shape in PUBLISHED.items()}
    assert list(totals.values()) == [3.75, 8.29, 33.45, 4.73]


def test_a_model_of_unknown_sizes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no sizes are known of nobody/nothing; name a folder with its config\.json"):
        shape_of("nobody/nothing")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"config\.json: memory is planned for .*, not for 'bert'"):
        shape_of(str(tmp_path))


def recipe(name):
    return ROOT / "recipes" / f"{name}.yaml"


def planned(name, *sets):
    return plan_of(params_with(recipe(name), list(sets)), Asked())


def test_what_each_setting_brings(project):
    """By hand: DeepSpeed holds two bytes a weight, the same again of gradients and twelve of optimizer, shared out."""
    weights = PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"].weights
    zero = {stage: planned("rec-3b", f"compute.deepspeed={{stage: {stage}, offload: none}}") for stage in (2, 3)}
    assert zero[2].memory.parts["weights"] == 2 * weights
    assert zero[3].memory.parts["weights"] == zero[3].memory.parts["reference"] == 2 * weights / 8
    assert zero[3].memory.parts["optimizer"] == zero[2].memory.parts["optimizer"] == 12 * weights / 8
    assert zero[3].memory.parts["weights gathered or laid out for sampling"] == 2 * weights
    plain = planned("rec-3b", "compute.deepspeed=null")
    assert plain.memory.parts["optimizer"] == 8 * weights and plain.memory.parts["gradients"] == 8 * weights  # DDP's
    lora = "trained.lora={r: 64, alpha: 128.0, dropout: 0.0, target_modules: all-linear, vision: false}"
    few, whole = planned("rec-3b", lora, "compute.deepspeed=null", "compute.quantize=4bit"), planned("rec-3b", lora)
    assert few.memory.parts["weights"] < 0.4 * 4 * weights and "reference" in few.memory.parts
    assert few.memory.parts["reference"] == whole.memory.parts["reference"] == 0  # the base beneath is one
    apart = planned("rec-3b", "grpo.share_prefix=false")
    assert apart.memory.parts["activations, vision"] > 7 * zero[3].memory.parts["activations, vision"]
    assert planned("ovd-3b").memory.parts["reference"] == 0
    gui = planned("gui-3b").load
    assert (gui.pictures, gui.visual, gui.prompts, gui.together) == (2, 3200, 1, 1)
    assert planned("rec-internvl-4b").load.visual == 7 * 256  # six tiles and the thumbnail


def test_what_does_not_fit_says_what_to_change(project, capsys):
    words = ["doctor", "--plan", str(recipe("rec-3b")), "-S", "compute.deepspeed=null", "--memory", "80GB"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().out
    assert ended.value.code == 1 and "does NOT fit 80 GB" in said
    assert '"compute.deepspeed={stage: 2, offload: none}": saves' in said and "still too much" in said
    assert said.index("compute.deepspeed") < said.index("trained.freeze_vision") < said.index("trained.lora")
    assert (project / "params.yaml").read_text() == default_params()
    plan = planned("rec-3b", "compute.deepspeed=null")
    for pair, other in changes(plan):  # each is a setting that params take, and its plan is that setting's
        again = planned("rec-3b", "compute.deepspeed=null", pair.strip('"'))
        if "lora" not in pair:
            assert again.memory == other.memory
        assert isinstance(again, Plan)
    main(["doctor", "--plan", str(recipe("rec-3b")), "--memory", "80GB"])
    said = capsys.readouterr().out
    assert "fits 80 GB" in said and "what to change" not in said and "hours of grpo: " in said


def test_devices_memory_and_seconds_of_the_command_line(project, capsys):
    main(["doctor", "--plan", str(recipe("gui-3b")), "--devices", "2", "--seconds-a-step", "30"])
    said = capsys.readouterr().out
    assert "a pass: 1 of 2 prompts a device on 2 devices" in said
    assert "hours of grpo: 10.0 (1200 steps of 30 s, as given)" in said
    main(["doctor", "--plan"])  # params.yaml itself: the tiny model, whose figures are in MB
    said = capsys.readouterr().out
    assert "memory a device, MB:" in said and "speeds of CPUs are not assumed" in said
    assert [bytes_of(one) for one in ("80GB", "24 GiB", "1.5gb")] == [80e9, 24 * 2**30, 1.5e9]
    for words, sentence in (
        (["--plan", "--memory", "80"], "--memory 80: write a number and MB, GB"),
        (["--plan", "--devices", "0"], "--devices 0: at least 1"),
        (["--memory", "80GB"], "--memory: belongs to --plan"),
        (["--plan", str(recipe("gui-3b")), "--devices", "3"], "4 prompts do not divide over 3 processes"),
        (["--plan", "recipes/none.yaml"], "no such recipe"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            main(["doctor", *words])


def test_hours_follow_from_the_arithmetic(project):
    """A step's arithmetic by hand: two FLOPs a weight and token, four times with checkpointing."""
    plan = planned("ovd-7b")
    speed = Speed(flops=1e12, bandwidth=1e12, reached=1.0, launch=0.0)
    step = seconds_a_step(plan.shape, plan.chosen, plan.load, speed)
    body = plan.shape.language - 2 * plan.shape.embedding
    tokens = 2 * (1280 + 128) + 2 * 8 * SAID
    forward = 2 * (body * tokens + plan.shape.embedding * 2 * 8 * SAID)
    assert step["policy"] == pytest.approx(4 * (forward + 2 * plan.shape.tower_weights * 2 * 4 * 1280) / 1e12)
    assert step["reference"] == 0 and step["rollout"] > SAID * 2 * plan.shape.weights / 1e12
    assert hours(plan.shape, plan.chosen, plan.load, speed, 36.0) == pytest.approx(1322 * 36 / 3600)
    apart = planned("ovd-7b", "grpo.share_prefix=false")
    assert seconds_a_step(apart.shape, apart.chosen, apart.load, speed)["policy"] > 3 * step["policy"]


def test_the_committed_table_is_near(project):
    """docs/memory.json, which `python -m benchmarks.memory` wrote; docs/devices.md shows it."""
    import json

    rows = json.loads((ROOT / "docs/memory.json").read_text())
    page = (ROOT / "docs/devices.md").read_text()
    assert list(rows) == list(SETTINGS)
    for name, row in rows.items():
        assert abs(row["planned"] / row["measured"] - 1) < NEAR, name
        assert f"| {name} | {row['measured'] / 1e6:.0f} | {row['planned'] / 1e6:.0f} |" in page
    assert load_params().compute.device == "auto"
