"""Adapters and frozen parts: what is trained, what is refused, and that merging loses nothing."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

from tests.engine import BATCHES, KINDS, backward, build, completions, difference
from tests.releases import ABOUT, WHERE
from vlmr1.adapters import add_lora, freeze, load_adapter_weights, merge, merged, save_adapter
from vlmr1.families import load_family
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.release.adapter import pinned
from vlmr1.release.publish import publish
from vlmr1.release.pull import pull
from vlmr1.release.store import open_store
from vlmr1.settings import Lora

BATCH = BATCHES["mixed"]
LANGUAGE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def lora(targets="all-linear", vision=False):
    return Lora(r=4, alpha=8.0, dropout=0.0, target_modules=targets, vision=vision)


def adapted(engine, settings, share=True):
    """A policy with an adapter that does something: B begins as 0."""
    model = engine.stock(torch.float32)
    prepare(model, engine.family, share)
    wrapped = add_lora(model, engine.family, settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    return Policy(wrapped.eval(), model, engine.family, 0.9, share, torch.device("cpu"))


def layers(model):
    return {name for name, module in model.named_modules() if hasattr(module, "lora_A")}


def says(policy, engine):
    with torch.no_grad():
        return policy.score(engine.prompts(BATCH), completions(BATCH)).logps


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def home(kind, tmp_path_factory):
    return tmp_path_factory.mktemp(kind)


@pytest.fixture(scope="module")
def engine(kind, home):
    """Its checkpoint in home / "base", and as transformers alone writes it again in home / "plain"."""
    engine = build(kind, home / "base")
    engine.family.save(engine.stock(torch.float32), home / "plain")
    return engine


@pytest.fixture(scope="module")
def saved(engine, home):
    """A policy with an adapter on everything, and the folder it was saved in."""
    policy = adapted(engine, lora(vision=True))
    save_adapter(policy.called, engine.family, home / "adapter", str(home / "base"))
    return policy, home / "adapter"


def test_all_linear_is_the_language_models_layers(engine):
    found = layers(adapted(engine, lora()).bare)
    assert {name.rpartition(".")[2] for name in found} == LANGUAGE
    assert len(found) == 3 * len(LANGUAGE) and not any(map(engine.family.is_vision, found))


def test_vision_adds_the_towers_linear_layers_alone(engine):
    more = layers(adapted(engine, lora(vision=True)).bare) - layers(adapted(engine, lora()).bare)
    tower = {
        name
        for name, module in engine.weights.named_modules()
        if isinstance(module, torch.nn.Linear) and set(name.split(".")) & set(engine.family.vision_modules)
    }
    assert more == {n for n in tower if not set(n.split(".")) & set(engine.family.projector_modules)} and more


def test_named_layers(engine):
    assert len(layers(adapted(engine, lora(("q_proj", "mlp.up_proj"))).bare)) == 6
    assert len(layers(adapted(engine, lora(("layers.1.self_attn.q_proj",))).bare)) == 1
    assert {n.rpartition(".")[2] for n in layers(adapted(engine, lora(("v_proj",))).bare)} == {"v_proj"}


def test_vision_without_a_target_in_the_tower_is_refused(engine):
    with pytest.raises(ValueError, match="no target lies in the vision tower"):
        add_lora(engine.stock(torch.float32), engine.family, lora(("layers.1.self_attn.q_proj",), vision=True))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lm_head", "'lm_head' is the head, which gets no adapter"),
        ("q_prj", "'q_prj' is no linear layer of the language model; name one of q_proj"),
        ("embed_tokens", "'embed_tokens' is no linear layer"),
        ("proj", "'proj' is no linear layer"),  # the end of a name, but not of a word
    ],
)
def test_other_targets_are_refused(engine, target, message):
    with pytest.raises(ValueError, match=rf"^trained\.lora\.target_modules: {message}"):
        add_lora(engine.stock(torch.float32), engine.family, lora(("q_proj", target)))


def test_a_towers_layer_needs_vision(engine):
    target = next(n for n in sorted(layers(adapted(engine, lora(vision=True)).bare)) if engine.family.is_vision(n))
    with pytest.raises(ValueError, match=r"set trained\.lora\.vision to true"):
        add_lora(engine.stock(torch.float32), engine.family, lora((target,)))


@pytest.mark.parametrize(("vision", "projector"), [(True, True), (True, False), (False, True), (False, False)])
def test_frozen_parts(engine, vision, projector):
    """Qwen's projector sits inside the tower; each is frozen without the other all the same."""
    policy = Policy(*[engine.policy(True).bare] * 2, engine.family, 0.9, True, torch.device("cpu"))
    freeze(policy.bare, engine.family, vision, projector)
    trained = backward(policy, policy.score(engine.prompts(BATCH), completions(BATCH))).keys()
    names = {name for name, _ in policy.bare.named_parameters()}
    joins = {n for n in names if set(n.split(".")) & set(engine.family.projector_modules)}
    tower = {n for n in names if engine.family.is_vision(n)} - joins
    assert joins and tower
    assert trained == names - (tower if vision else set()) - (joins if projector else set())
    assert engine.family.frozen(policy.bare, "tower") == vision
    assert engine.family.frozen(policy.bare, "projector") == projector
    assert not engine.family.frozen(policy.bare, "language")


def test_the_adapter_off_is_the_base(engine):
    """The reference policy under an adapter; training goes on afterwards."""
    policy = adapted(engine, lora())
    base = says(engine.policy(True, torch.float32), engine)
    assert difference(says(policy, engine), base) > 1e-2
    with policy.called.disable_adapter():
        assert torch.equal(says(policy, engine), base)
    assert difference(says(policy, engine), base) > 1e-2
    trained = backward(policy, policy.score(engine.prompts(BATCH), completions(BATCH))).keys()
    assert trained == {n for n, _ in policy.bare.named_parameters() if "lora_" in n}


def test_an_adapters_folder(engine, home, saved):
    policy, folder = saved
    assert {p.name for p in folder.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json", "base.json"}
    assert json.loads((folder / "base.json").read_text())["base"] == str(home / "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == layers(policy.bare)
    assert config["base_model_name_or_path"] == str(home / "base")
    gathered = policy.called.state_dict()  # as from several processes
    save_adapter(policy.called, engine.family, home / "again", str(home / "base"), gathered)
    for path in folder.iterdir():
        assert path.read_bytes() == (home / "again" / path.name).read_bytes()
    loaded = PeftModel.from_pretrained(engine.stock(torch.float32), folder)  # as anyone would
    prepare(loaded.get_base_model(), engine.family, share=True)
    other = Policy(loaded.eval(), loaded.get_base_model(), engine.family, 0.9, True, torch.device("cpu"))
    assert torch.allclose(says(other, engine), says(policy, engine), atol=1e-5)


def test_an_adapters_weights_come_back(engine, home, saved):
    policy, _ = saved
    policy.called.save_pretrained(home / "by peft")
    fresh = adapted(engine, lora(vision=True))
    with torch.no_grad():
        for name, parameter in fresh.bare.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    load_adapter_weights(fresh.called, home / "by peft")
    assert torch.equal(says(fresh, engine), says(policy, engine))
    with pytest.raises(ValueError, match="on other layers"):
        load_adapter_weights(adapted(engine, lora()).called, home / "by peft")


def test_merging_loses_nothing(engine, home, saved):
    """From memory, from a state gathered elsewhere, and from the saved folder: one plain checkpoint."""
    policy, folder = saved
    before = says(policy, engine)
    merged(policy.called, engine.family, home / "memory")
    assert torch.equal(says(policy, engine), before)
    gathered = {name: tensor.clone() for name, tensor in policy.called.state_dict().items()}  # tied weights twice
    merged(policy.called, engine.family, home / "gathered", gathered)
    merge(folder, None, home / "merged")
    base = home / "plain"
    for other in ("memory", "gathered", "merged"):
        assert {p.name for p in (home / other).iterdir()} == {p.name for p in base.iterdir()}
        config = json.loads((home / other / "config.json").read_text())
        assert config == json.loads((base / "config.json").read_text())  # nothing of the engine's attention either
        weights = load_file(home / other / "model.safetensors")
        assert all(torch.equal(weights[n], t) for n, t in load_file(home / "merged" / "model.safetensors").items())
        with safe_open(base / "model.safetensors", "pt") as file:
            assert weights.keys() == set(file.keys())
    family = load_family(home / "merged", 112 * 112)
    model = family.load_model(home / "merged", torch.float32)
    assert type(model) is type(engine.weights) and type(model.get_output_embeddings()) is torch.nn.Linear
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == engine.weights.config.tie_word_embeddings
    prepare(model.eval(), family, share=False)
    alone = says(Policy(model, model, family, 0.9, False, torch.device("cpu")), engine)
    assert difference(alone, before) < 1e-5
    assert difference(alone, says(engine.policy(False, torch.float32), engine)) > 1e-2


def test_a_published_adapter_is_by_itself_and_merges_after_a_pull(engine, home, saved):
    """Its base is pinned instead of a path of here; manifest and card do not go into the merged checkpoint."""
    _, folder = saved
    base = {"kind": "hub", "model": "org/base", "revision": "a" * 40, "sha256": "0" * 64}
    pinned(folder, base, home / "to publish")
    store = open_store(str(home / "store"))
    publish(store, "toy", home / "to publish", ABOUT | {"kind": "adapter", "base": base}, WHERE, lambda v: v, {})
    pull(store, "toy@latest", home / "pulled", lambda _: None)
    config = json.loads((home / "pulled/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "a" * 40)
    with pytest.raises(ValueError, match=r"org/base at a{40}: neither a folder nor downloaded"):
        merge(home / "pulled", None, home / "refused")
    merge(home / "pulled", home / "base", home / "merged after a pull")
    assert {p.name for p in (home / "merged after a pull").iterdir()} == {p.name for p in (home / "plain").iterdir()}
    merge(folder, None, home / "merged here")
    one, other = (load_file(home / f"merged {which}" / "model.safetensors") for which in ("after a pull", "here"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    loaded = PeftModel.from_pretrained(engine.stock(torch.float32), home / "pulled")  # as anyone would
    assert loaded.peft_config["default"].revision == "a" * 40


def test_another_base_is_refused(engine, home, saved):
    """A base with other weights is not merged into; a moved one is, when named; the output stays as it was."""
    _, folder = saved
    other = home / "other"
    altered = engine.stock(torch.float32)
    with torch.no_grad():
        altered.get_input_embeddings().weight[0, 0] += 1
    engine.family.save(altered, other)
    with pytest.raises(ValueError, match="other weights than"):
        merge(folder, other, home / "refused")
    assert not (home / "refused").exists()
    moved = home / "moved"
    (home / "base").rename(moved)
    try:
        with pytest.raises(ValueError, match="neither a folder nor downloaded"):
            merge(folder, None, home / "refused")
        merge(folder, moved, home / "from moved")
    finally:
        moved.rename(home / "base")
    with pytest.raises(ValueError, match=r"no base\.json"):
        merge(home / "base", None, home / "refused")


def test_a_trained_checkpoint_is_plain(engine, home):
    """The head that answers questions and the shared attention leave no trace in what is saved."""
    policy = engine.policy(True, torch.float32)
    engine.family.save(policy.bare, home / "trained")
    for path in (home / "trained").iterdir():
        assert b"shared_prefix" not in path.read_bytes()
        assert path.read_bytes() == (home / "plain" / path.name).read_bytes()
