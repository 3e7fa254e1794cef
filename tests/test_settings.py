from pathlib import Path

import pytest

from tests.conftest import default_params
from vlmr1.plan import params_with
from vlmr1.recipes import apply
from vlmr1.settings import load_params

ROOT = Path(__file__).parent.parent


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(default_params())
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_default_params_are_valid(params):
    assert load_params(params).grpo.num_generations >= 2


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_gives_valid_params(params, recipe):
    assert apply(recipe, [], params)
    load_params(params)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "  num_generations: 8",
            "  num_generation: 8",
            r"grpo\.num_generation: unknown key; did you mean num_generations",
        ),
        ("  num_generations: 8", "  num_generations: 1", r"grpo\.num_generations: .*greater than or equal to 2"),
        ("  num_generations: 8", "  num_generations: eight", r"grpo\.num_generations: .*integer.*'eight'"),
        ("  epsilon: 0.2", "  epsilon: null", r"grpo: epsilon: .*needed"),
        ("  num_iterations: 2", "  num_iterations: 1", r"grpo: epsilon: .*no effect"),
        ("  steps: 480", "  steps: 481", r"grpo: steps: must be a multiple of num_iterations"),
        ("  decay_share: 0.15", "  decay_share: null", r"decay_share: belongs to"),
        (
            "  pretrained: null",
            "  pretrained: {model: a/b, revision: null}",
            r"warmup: tiny, training: have no meaning",
        ),
        ("role: train,", "role: evaluate,", r"no source has role train"),
        ("role: warmup,", "role: train,", r"data\.sources: no source has role warmup"),
        ("split: train}", "splt: train}", r"data\.sources\.train\.splt: unknown key; did you mean split"),
        ("  heads: 4", "  heads: 3", r"warmup\.tiny: heads: hidden_size"),
        ("vocabulary: 1200", "vocabulary: 10", r"warmup\.tiny: vocabulary: at least"),
        ("adam_beta2: 0.95", "adam_beta2: 1.0", r"adam_beta2: .*less than 1"),
        ("learning_rate: 1.5e-3", "learning_rate: .inf", r"learning_rate: .*finite"),
        ("save_steps: 60", "save_steps: 6000", r"save_steps: is beyond the run's 240 steps"),
        ("root: data/world", "root: ./data/world", r"data: root: name a folder plainly, e\.g\. data/world"),
        ("root: data/world", "root: data/mine", r"params\.yaml: world: belongs to data\.root data/world"),
        ("objects: [1, 1]", "objects: [2, 1]", r"world\.rec\.splits\.warmup: objects: fewest and most"),
        (
            "  compute_ratio: 4\n",
            "  compute_ratio: 4\n  warmup_stepz: 1\n",
            r"sft\.warmup_stepz: unknown key; did you mean warmup_steps",
        ),
        ("  warmup_steps: 10\n", "  warmup_steps: 9999\n", r"sft\.warmup_steps: is beyond the run's 240 steps"),
        ("objects: [1, 1]", "objects: [1, 1000000000]", r"objects: these colours give at most 4 objects"),
        ("report:\n", "reports:\n", r"report: missing"),
    ],
)
def test_a_fault_is_named_with_its_key(params, old, new, said):
    edit(params, old, new)
    with pytest.raises(ValueError, match=said):
        load_params(params)


def test_evaluation_may_see_larger_pictures_than_training(params):
    chosen = load_params(params)
    assert chosen.asked_pixels == chosen.convert.max_pixels == 12544
    edit(params, "  max_pixels: null", "  max_pixels: 50176")
    assert load_params(params).asked_pixels == 50176
    edit(params, "store_pictures: false", "store_pictures: true")
    with pytest.raises(ValueError, match=r"evaluate\.max_pixels: convert\.store_pictures shrinks pictures"):
        load_params(params)


def test_evaluation_asks_with_its_own_pixels(params, tmp_path, monkeypatch):
    from vlmr1.evaluation import running

    edit(params, "  max_pixels: null", "  max_pixels: 50176")
    asked = []
    monkeypatch.setattr(running, "load_sources", lambda *_: [])
    monkeypatch.setattr(running, "settings_of", lambda *_: {})
    monkeypatch.setattr(running, "fingerprint_of", lambda _: {})
    monkeypatch.setattr(running, "is_first", lambda: False)
    monkeypatch.setattr(running, "ask_all", lambda *given: asked.append(given[4]) or ([], {}))
    assert running.evaluate(load_params(params), tmp_path, tmp_path, tmp_path / "work", tmp_path / "out") is None
    assert asked == [50176]


def test_who_is_asked_and_how_patiently_changes_nothing_of_the_answers(params, tmp_path):
    from vlmr1.evaluation.running import settings_of

    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/sources.json").write_text('{"s": {"images": "."}}')
    (tmp_path / "evaluate/s.jsonl").touch()
    edit(params, "engine: in-process         #", "engine: http  #")
    edit(params, "servers: null              # of http", "servers: [http://h:1/v1]  #")
    before = settings_of(load_params(params), tmp_path)
    edit(params, "timeout: null              # of http", "timeout: 9  #")
    assert load_params(params).evaluate.timeout == 9
    assert settings_of(load_params(params), tmp_path) == before


def test_yaml_1_2_numbers_are_numbers(params):
    edit(params, "learning_rate: 6.0e-4", "learning_rate: 3e-05")
    assert load_params(params).sft.learning_rate == 3e-5


def test_a_recipe_that_does_not_fit_changes_nothing(params, tmp_path):
    before = params.read_bytes()
    recipe = tmp_path / "r.yaml"
    recipe.write_text("grpo: {num_generations: 0}\n")
    with pytest.raises(ValueError, match="num_generations"):
        apply(recipe, [], params)
    with pytest.raises(ValueError, match="no such key"):
        apply(ROOT / "recipes/smoke.yaml", ["grpo.nonsense=1"], params)
    assert params.read_bytes() == before


@pytest.mark.parametrize("revision", ["abc", "main", "A" * 40, "a" * 39, "a" * 41, "FULL_40_DIGIT_COMMIT"])
def test_a_base_is_pinned_by_a_full_commit_or_a_digest(params, revision):
    key = f"warmup.pretrained.revision={revision}"
    with pytest.raises(ValueError, match=rf"^-S {key}: warmup\.pretrained: revision: '{revision}' is neither"):
        apply(ROOT / "recipes/rec-3b.yaml", [key], params)


@pytest.mark.parametrize("revision", ["a1" * 20, "b2" * 32])
def test_a_full_commit_and_a_digest_are_taken(params, revision):
    apply(ROOT / "recipes/rec-3b.yaml", [f"warmup.pretrained.revision={revision}"], params)
    assert load_params(params).warmup.pretrained.revision == revision


@pytest.mark.parametrize(
    ("recipe", "sets", "said"),
    [
        (None, ["grpo.num_generations=0"], ["-S grpo.num_generations=0: grpo.num_generations: should be greater"]),
        ("grpo: {seed: 2}", ["grpo.steps=4", "grpo.seed=x"], ["-S grpo.seed=x: grpo.seed: should be a valid integer"]),
        ("grpo: {steps: 0}", ["grpo.seed=2"], ["r.yaml: grpo.steps: should be", "if another recipe lies over"]),
        ("grpo: {steps: 0}", ["grpo.seed=x"], ["-S grpo.seed=x: grpo.seed", "r.yaml: grpo.steps", "if another"]),
        (None, ["publish.merge=true"], ["-S publish.merge=true: publish.merge: true or false under trained.lora"]),
        (None, ["grpo=1"], ["-S grpo=1: grpo: a block of keys is needed (it is 1)"]),
        (None, ["=1"], ["-S =1: write KEY=VALUE"]),
    ],
)
def test_a_fault_is_laid_at_the_door_of_what_brought_it(params, tmp_path, recipe, sets, said):
    path = tmp_path / "r.yaml"
    path.write_text(recipe or "")
    with pytest.raises(ValueError) as told:
        (apply if len(sets) > 1 else params_with)(recipe and path, sets, params)  # as `doctor --plan` does
    lines = str(told.value).splitlines()
    assert len(lines) == len(said)
    for line, wanted in zip(lines, said, strict=True):
        assert line.removeprefix(f"{tmp_path}/").startswith(wanted)


def test_a_fault_that_was_there_before_is_the_files_own(params):
    edit(params, "  steps: 480", "  steps: 481")
    with pytest.raises(ValueError, match=rf"^{params}: grpo: steps: must be a multiple[^\n]*$"):
        apply(None, ["grpo.seed=2"], params)
    params.write_text("grpo: [")
    with pytest.raises(ValueError, match=rf"{params}: not YAML"):
        apply(None, ["grpo.seed=2"], params)


def test_setting_one_key_of_a_map_leaves_its_others(params):
    apply(None, ["gate.keep.in_domain=0.05", "grpo.rewards.length=0.5"], params)
    assert load_params(params).gate.keep == {"in_domain": 0.05, "new_colours": 0.02}
    assert load_params(params).grpo.rewards == {"accuracy": 1.0, "format": 1.0, "length": 0.5}
    apply(None, ["grpo.rewards={format: 1.0}"], params)
    assert load_params(params).grpo.rewards == {"format": 1.0}


def test_a_recipe_keeps_the_comments_of_params(params):
    changed = apply(ROOT / "recipes/smoke.yaml", ["grpo.learning_rate=3e-5"], params)
    assert "# the clip" in params.read_text()
    assert "grpo.learning_rate: 3e-05" in changed
    assert load_params(params).grpo.learning_rate == 3e-5
