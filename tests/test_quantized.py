# ruff: noqa: F811
"""Bases in 4 and 8 bits beneath adapters: really trained where bitsandbytes is installed; what is refused anywhere."""

import importlib.util
import json

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.quantizers.quantizers_utils import should_convert_module

from tests.processes import LORA, PAIR, command, zero
from tests.test_processes import folder, mixed, place  # noqa: F401  (fixtures)
from vlmr1.adapters import merge
from vlmr1.cli import main
from vlmr1.families import FAMILIES, load_family
from vlmr1.families.random import write_random
from vlmr1.quantized import kept_whole

installed = importlib.util.find_spec("bitsandbytes") is not None
needed = pytest.mark.skipif(not installed, reason="bitsandbytes is not installed: pip install -e '.[quant]'")


@pytest.mark.slow
@needed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.parametrize("way", ["", "compute.activation_checkpointing=true", "share_prefix=false"])
def test_a_quantized_base_trains_and_leaves_a_plain_checkpoint(place, tmp_path, bits, way):

    out = tmp_path / "out"
    main(command(place, out, LORA, f"compute.quantize={bits}", *filter(None, [way])))
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["steps"] == 4
    policy = AutoModelForImageTextToText.from_pretrained(out / "policy")
    assert all(p.dtype == torch.float32 for p in policy.parameters())
    config = json.loads((out / "policy/config.json").read_text())
    assert "quantization_config" not in config
    merge(out / "policy/adapter", None, tmp_path / "again")  # of the base in full precision, as the run merged it
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "again").state_dict()
    base = AutoModelForImageTextToText.from_pretrained(place.base).state_dict()
    moved = 0
    for name, tensor in policy.state_dict().items():
        torch.testing.assert_close(tensor, again[name], rtol=0, atol=1e-6)
        moved += bool((tensor - base[name]).abs().max() > 1e-5)
    assert moved > 0


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_transformers_would_quantize_is_the_language_models_layers(tmp_path, kind):
    """By the names alone, which is what transformers goes by; without the library."""
    write_random(kind, tmp_path)
    family = load_family(tmp_path, None)
    model = family.load_model(tmp_path, torch.float32)
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    few = {name for name in layers if should_convert_module(name, kept_whole(family))}
    assert few and few == {n for n in layers if family.part(n) == "language" and n != "lm_head"}


@pytest.mark.slow
@needed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_language_models_layers_alone_are_quantized(tmp_path, kind, bits):
    from tests.conftest import COMPUTE
    from vlmr1.device import decide, look
    from vlmr1.quantized import load_quantized

    write_random(kind, tmp_path)
    family = load_family(tmp_path, None)
    model = load_quantized(family, tmp_path, bits, decide(COMPUTE, look()))
    kinds = {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}
    layers = {n: type(m).__name__ for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    few = {name for name, layer in layers.items() if layer == kinds[bits]}
    assert few and few == {n for n in layers if family.part(n) == "language" and n != "lm_head"}


REFUSED = {
    "without adapters": (("compute.quantize=4bit",), r"compute.quantize: .* by adapters alone; give trained.lora"),
    "sharded weights": (
        ("compute.quantize=4bit", LORA, PAIR, zero(3)),
        "compute: quantize: ZeRO-3 cannot shard quantized weights",
    ),
    "bits that are none": (("compute.quantize=3bit", LORA), r"compute.quantize: should be '4bit' or '8bit'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence(place, tmp_path, name):
    sets, sentence = REFUSED[name]
    with pytest.raises(SystemExit, match=sentence):
        main(command(place, tmp_path / "out", *sets))


def test_without_the_library_it_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setattr("vlmr1.device._quantizes", lambda kind: None)
    from vlmr1.device import look

    look.cache_clear()
    with pytest.raises(SystemExit, match=r"compute.quantize: 8bit needs bitsandbytes, which is not installed: pip"):
        main(command(place, tmp_path / "out", LORA, "compute.quantize=8bit"))
    look.cache_clear()
