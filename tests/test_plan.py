"""Planned memory against measured, sizes against real models, and what is said of a run that does not fit."""

import json
import shlex

import pytest

from benchmarks.memory import OTHERS, SETTINGS, compare, write_case
from tests.conftest import ROOT, default_params
from vlmr1.cli import main
from vlmr1.families import FAMILIES
from vlmr1.plan import Asked, Plan, bytes_of, changes, params_with, plan_of
from vlmr1.plan.hours import SAID, Speed, hours, seconds_a_step
from vlmr1.plan.shapes import PUBLISHED, shape_of
from vlmr1.plan.towers import TOWERS
from vlmr1.settings import load_params

QUICK = "full"
QUANTIZED = "compute.quantize=4bit"
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
def test_the_planned_peak_is_near_the_measured(case, name, tmp_path):
    if name in OTHERS:
        write_case(tmp_path, OTHERS[name])
    row = compare(tmp_path if name in OTHERS else case, SETTINGS[name])
    assert row["planned"] == pytest.approx(row["measured"], rel=NEAR), row


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("qwen2_vl", {}),
        ("qwen2_5_vl", {"tie_word_embeddings": True}),
        ("qwen3_vl", {}),
        ("internvl", {"tile": 56, "patch": 7}),
        ("internvl", {"text_type": "qwen3", "tie_word_embeddings": True}),
        ("glm4v", {}),
        ("smolvlm", {"tile": 56, "patch": 7}),
        ("idefics3", {"tie_word_embeddings": True}),
        ("gemma3", {"tile": 56, "patch": 7, "tie_word_embeddings": True}),
    ],
)
def test_weights_are_counted_as_the_model_has_them(tmp_path, kind, sizes):
    from transformers import AutoModelForImageTextToText

    from benchmarks.memory import SIZES
    from vlmr1.families.random import write_random

    write_random(kind, tmp_path, **{**SIZES, **sizes})
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert shape_of(str(tmp_path)).weights == pytest.approx(sum(p.numel() for p in model.parameters()), rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [
        ("qwen2_5_vl", 50176),
        ("glm4v", 50176),
        ("internvl", 9 * 28**2),
        ("smolvlm", 9 * 28**2),
        ("idefics3", 28**2),
        ("gemma3", 3136),
    ],
)
def test_visual_tokens_are_counted_as_the_family_has_them(tmp_path, kind, pixels):
    from vlmr1.families import load_family
    from vlmr1.families.random import write_random

    write_random(kind, tmp_path)
    assert shape_of(str(tmp_path)).visual(pixels) == load_family(tmp_path, pixels).tokens_of((224, 224))


def test_gemma_is_planned_without_sharing(project, tmp_path, capsys):
    from vlmr1.families.random import write_random

    write_random("gemma3", tmp_path / "gemma")
    config = tmp_path / "gemma/config.json"
    terse = {"model_type": "gemma3", "text_config": {"hidden_size": 2560, "num_hidden_layers": 34}, "vision_config": {}}
    words = ["doctor", "--plan", str(recipe("rec-3b")), "-S", f"warmup.pretrained.model={tmp_path / 'gemma'}"]
    with pytest.raises(SystemExit, match=r"gemma3 cannot share prompts exactly; add -S grpo.share_prefix=false"):
        main(words)
    with pytest.raises(SystemExit):
        main([*words, "-S", "grpo.share_prefix=false", "--memory", "1MB"])
    assert "share_prefix" not in capsys.readouterr().out
    config.write_text(json.dumps(terse))  # as published: the rest is the class's own
    shape = shape_of(str(tmp_path / "gemma"))
    assert (shape.layers, shape.vocabulary, shape.width, shape.tied) == (34, 262208, 256, True)


def test_published_sizes_add_up_to_the_published_totals():
    """Billions of weights that the hub counts in the makers' own files."""
    totals = {name: round(shape.weights / 1e9, 2) for name, shape in PUBLISHED.items()}
    assert list(totals.values()) == [3.75, 8.29, 33.45, 4.73]


def test_every_family_is_counted():
    assert set(TOWERS) == set(FAMILIES)


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
    # DeepSpeed's buffers for 500 million gradients: two of ZeRO-2, one of ZeRO-3, however few learn
    assert zero[2].memory.parts["gradients"] == 2 * weights / 8 + 2 * 2 * 500e6
    assert zero[3].memory.parts["gradients"] == 2 * weights / 8 + 2 * 500e6
    assert planned("rec-3b-lora").memory.parts["gradients"] > 2e9
    plain = planned("rec-3b", "compute.deepspeed=null")
    assert plain.memory.parts["optimizer"] == 8 * weights and plain.memory.parts["gradients"] == 8 * weights  # DDP's
    lora = "trained.lora={r: 64, alpha: 128.0, dropout: 0.0, target_modules: all-linear, vision: false}"
    adapters = (lora, "publish.merge=true")
    few, whole = planned("rec-3b", *adapters, "compute.deepspeed=null", QUANTIZED), planned("rec-3b", *adapters)
    assert few.memory.parts["weights"] < 0.4 * 4 * weights and "reference" in few.memory.parts
    assert few.memory.parts["reference"] == whole.memory.parts["reference"] == 0  # the base beneath is one
    apart = planned("rec-3b", "grpo.share_prefix=false")
    assert apart.memory.parts["activations, vision"] > 7 * zero[3].memory.parts["activations, vision"]
    assert planned("ovd-3b").memory.parts["reference"] == 0
    learnt = planned("ovd-32b")
    assert learnt.memory.host == 16 * learnt.shape.weights / 2 and zero[3].memory.host == 0  # of two nodes
    every = planned("rec-3b", "compute.deepspeed={stage: 3, offload: all}").memory.host
    assert every == (16 + 2 + 2) * weights  # with the policy and its reference
    gui = planned("gui-3b").load
    assert (gui.pictures, gui.visual, gui.prompts, gui.together) == (2, 3200, 1, 1)
    assert planned("rec-internvl-4b").load.visual == 7 * 256  # six tiles and the thumbnail


def sets_of(words):
    """The KEY=VALUE pairs of what a shell is told after its first -S."""
    return [word for word in shlex.split(words) if word != "-S"]


def test_where_one_change_is_not_enough_several_are_said_together(project, capsys):
    words = ["doctor", "--plan", str(recipe("ovd-7b")), "--devices", "1", "-S", "compute.deepspeed=null"]
    with pytest.raises(SystemExit):
        main([*words, "--memory", "24GB"])
    said = capsys.readouterr().out.splitlines()
    assert not any(line.endswith(", fits") for line in said if line.startswith("  "))
    (line,) = [line for line in said if line.startswith("together, -S ")]
    assert line.endswith("GB in all, fits") and "trained.lora" in line and QUANTIZED in line
    pairs = sets_of(line.removeprefix("together, ").rpartition(": ")[0])
    main([*words, *(word for pair in pairs for word in ("-S", pair)), "--memory", "24GB"])  # as they stand there
    assert "fits 24 GB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["doctor", "--plan", str(recipe("ovd-32b")), "--memory", "1GB"])
    assert "GB in all, still too much: take more devices, or a smaller model" in capsys.readouterr().out


def test_dropout_keeps_prompts_apart_and_the_plan_says_so(project, capsys):
    words = ["doctor", "--plan", str(recipe("rec-3b-lora"))]
    with pytest.raises(SystemExit):
        main([*words, "--memory", "18GB"])
    said = capsys.readouterr().out
    assert "5.02  instead, activations with trained.lora.dropout 0.0" in said
    assert "  trained.lora.dropout=0.0: saves " in said
    main([*words, "-S", "trained.lora.dropout=0.0"])
    said = capsys.readouterr().out
    assert "5.02  activations, language" in said and "6.34  instead, activations with share_prefix false" in said


def test_no_sharding_is_proposed_to_float16(project):
    plain = planned("rec-3b", "compute.deepspeed=null", "compute.dtype=float16")
    assert not any("deepspeed" in said for said, _ in changes(plain))
    assert any("deepspeed" in said for said, _ in changes(planned("rec-3b", "compute.deepspeed=null")))


def test_what_the_host_holds_is_said(project, capsys):
    main(["doctor", "--plan", str(recipe("ovd-32b"))])
    assert "host memory a node: 268 GB of what is offloaded" in capsys.readouterr().out
    main(["doctor", "--plan", str(recipe("rec-3b"))])
    assert "host memory" not in capsys.readouterr().out


def test_adapters_over_a_quantized_base_leave_zero_3(project, capsys):
    lora = "trained.lora={r: 64, alpha: 128.0, dropout: 0.0, target_modules: all-linear, vision: false}"
    adapted = planned("ovd-32b", lora, "publish.merge=true")
    found = dict(changes(adapted))
    (said,) = [said for said in found if said.startswith("compute.quantize")]
    assert "{stage: 2, offload: optimizer}" in said
    again = planned("ovd-32b", lora, "publish.merge=true", *sets_of(said))
    assert again.memory == found[said].memory and again.memory.total < 0.9 * adapted.memory.total
    words = ["doctor", "--plan", str(recipe("ovd-32b")), "--memory", "48GB"]
    with pytest.raises(SystemExit):
        main(words)
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("together, -S ")]
    assert line.endswith("GB in all, fits") and line.count("compute.deepspeed") == 1 and "stage: 2" in line
    pairs = sets_of(line.removeprefix("together, ").rpartition(": ")[0])
    main([*words, *(word for pair in pairs for word in ("-S", pair))])
    assert "fits 48 GB" in capsys.readouterr().out


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
    for words, other in changes(plan):  # each is a setting that params take, and its plan is that setting's
        again = planned("rec-3b", "compute.deepspeed=null", *sets_of(words))
        assert isinstance(again, Plan) and again.memory == other.memory
    main(["doctor", "--plan", str(recipe("rec-3b")), "--memory", "80GB"])
    said = capsys.readouterr().out
    assert "fits 80 GB" in said and "what to change" not in said and "hours of grpo: " in said


def test_devices_memory_and_seconds_of_the_command_line(project, capsys):
    main(["doctor", "--plan", str(recipe("gui-3b")), "--devices", "2", "--seconds-a-step", "30"])
    said = capsys.readouterr().out
    assert "a pass: 1 of 2 prompts a device on 2 devices" in said
    assert "hours of grpo: 10.0 (1200 steps of 30 s, as given)" in said
    main(["doctor", "--plan", "--text", "40"])
    assert "each 56 tokens (1 x 16 visual, 40 of text assumed)" in capsys.readouterr().out
    main(["doctor", "--plan"])  # params.yaml itself: the tiny model, whose figures are in MB
    said = capsys.readouterr().out
    assert "memory a device, MB:" in said and "speeds of CPUs are not assumed" in said
    assert "1 x 16 visual, 16 of text assumed" in said and "230.0 MB in all" in said  # 219 MB were measured
    main(["doctor", "--plan", "--memory", "80GB"])
    assert "fits 80 GB\n" in capsys.readouterr().out
    assert [bytes_of(one) for one in ("80GB", "24 GiB", "1.5gb")] == [80e9, 24 * 2**30, 1.5e9]
    for words, sentence in (
        (["--plan", "--memory", "80"], "--memory 80: write a number and MB, GB"),
        (["--plan", "--devices", "0"], "--devices 0: at least 1"),
        (["--plan", "--memory", "0GB"], "--memory 0: at least 1"),
        (["--plan", "--text", "-3"], "--text -3: at least 1"),
        (["--plan", "--seconds-a-step", "-5"], "--seconds-a-step -5: above 0, and finite"),
        (["--plan", "--seconds-a-step", "nan"], "--seconds-a-step nan: above 0, and finite"),
        (["--seconds-a-step", "0"], "--seconds-a-step: belongs to --plan"),
        (["--memory", "80GB"], "--memory: belongs to --plan"),
        (["--plan", str(recipe("gui-3b")), "--devices", "3"], "^vlmr1 doctor: grpo.prompts_per_step: 4 prompts do not"),
        (["--plan", str(recipe("gui-3b")), "--devices", "1"], "shards over processes, and there is one; add -S"),
        (["--plan", str(recipe("gui-3b")), "-S", "compute.dtype=float16"], "float16 needs the trainer's own loss"),
        (["--plan", "recipes/none.yaml"], "no such recipe"),
        (
            ["--plan", "-S", "compute.dtype=float64"],
            r"^vlmr1 doctor: -S compute\.dtype=float64: compute\.dtype: should be",
        ),
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
    rows = json.loads((ROOT / "docs/memory.json").read_text())
    page = (ROOT / "docs/devices.md").read_text()
    assert list(rows) == list(SETTINGS)
    for name, row in rows.items():
        assert abs(row["planned"] / row["measured"] - 1) < NEAR, name
        assert f"| {name} | {row['measured'] / 1e6:.0f} | {row['planned'] / 1e6:.0f} |" in page
    assert load_params().compute.device == "auto"
