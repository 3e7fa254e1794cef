"""What of a model is trained: frozen parts, and low-rank adapters by peft with their saving and merging.

An adapter's folder holds the adapter, tokenizer, image processor and `base.json`, which says what it was trained on.
A merged checkpoint is a plain one: full weights, nothing of peft or of the engine in it.
Left out on purpose: adapters on the head or the embedding, which are often one matrix, and methods other than LoRA.
"""

from __future__ import annotations

import copy
import difflib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageTextToText

from vlmr1.families.base import Family
from vlmr1.files import digest_of_weights, whole_folder, write_json
from vlmr1.settings import Lora

KEY = "trained.lora.target_modules"
WEIGHTS, CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base.json"
OF_A_RELEASE = ("manifest.json", "README.md")  # beside an adapter that was pulled
INSIDE = "base_model.model."  # what peft puts before the names of the model's own modules


def freeze(model: nn.Module, family: Family, vision: bool, projector: bool) -> None:
    """Take the tower, the projector or both out of training."""
    frozen = {"tower": vision, "projector": projector, "language": False}
    for name, parameter in model.named_parameters():
        parameter.requires_grad &= not frozen[family.part(name)]


def add_lora(model: Any, family: Family, settings: Lora) -> PeftModel:
    """Freeze the model and hang trained adapters on its linear layers. Raises ValueError for a target that is none."""
    alpha: Any = settings.alpha  # peft says int, and only divides it by r
    targets = sorted(_targets(model, family, settings))
    config = LoraConfig(r=settings.r, lora_alpha=alpha, lora_dropout=settings.dropout, target_modules=targets)
    return get_peft_model(model, config)


def save_adapter(
    model: PeftModel,
    family: Family,
    folder: Path,
    base: str,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the adapter alone. `base` is a folder, or a name on the Hugging Face hub that was downloaded.

    `state` is the model's state dict where its own is sharded over processes.
    """
    write_adapter(model, folder, base, state)
    write_json(folder / BASE, {"base": base, "revision": None, "sha256": digest_of_weights(_local(base))})
    family.tokenizer.save_pretrained(folder)
    family.images.save_pretrained(folder)


def write_adapter(model: PeftModel, folder: Path, base: str, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write what peft and servers read of an adapter: its weights and its config."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(get_peft_model_state_dict(model, state_dict=state), folder / WEIGHTS, metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = base, True
    # Every layer by its name: what peft holds is a shortened set, in another order in every run.
    config.target_modules = [n for n, layer in model.get_base_model().named_modules() if hasattr(layer, "lora_A")]
    config.save_pretrained(str(folder))


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Give the model's adapter the weights of a folder that peft or `save_adapter` wrote."""
    saved = load_file(folder / WEIGHTS)
    if saved.keys() != get_peft_model_state_dict(model).keys():
        raise ValueError(f"{folder / WEIGHTS}: holds an adapter on other layers than {KEY} names")
    set_peft_model_state_dict(model, saved)


def merged(model: PeftModel, family: Family, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a full, plain checkpoint; `state` is the model's state dict where its own is sharded over processes."""
    family.save(model.get_base_model(), folder, merged_weights(model, state))


def merge(adapter: Path, base: Path | None, output: Path) -> None:
    """Make a full checkpoint of a saved adapter and its base, by default the one it names. Refuses any other base."""
    if not (adapter / BASE).is_file():
        raise ValueError(f"{adapter}: no {BASE}; a folder as training leaves its adapter in is needed")
    if not (adapter / WEIGHTS).is_file():  # peft would look for a pickle in its place
        raise ValueError(f"{adapter}: no {WEIGHTS}, the only kind of weights that is read")
    card = json.loads((adapter / BASE).read_text(encoding="utf-8"))
    found = _local(card["base"], card["revision"]) if base is None else base
    if digest_of_weights(found) != card["sha256"]:
        raise ValueError(f"{found}: other weights than {adapter} was trained on; name the folder of {card['base']}")
    # In float32, as training holds and writes it: rounding the sum to a half would change the outputs.
    bare = AutoModelForImageTextToText.from_pretrained(found, dtype=torch.float32, use_safetensors=True)
    with whole_folder(output) as folder:
        bare.save_pretrained(folder, state_dict=merged_weights(PeftModel.from_pretrained(bare, str(adapter)), None))
        for path in adapter.iterdir():  # tokenizer and image processor as they were trained with
            if path.is_file() and path.name not in (WEIGHTS, CONFIG, BASE, *OF_A_RELEASE):
                shutil.copyfile(path, folder / path.name)


def merged_weights(model: PeftModel, state: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """`each_merged`, all together."""
    return dict(each_merged(model, state))


def each_merged(model: PeftModel, state: Mapping[str, torch.Tensor] | None) -> Iterator[tuple[str, torch.Tensor]]:
    """W + (alpha / r) B A for each adapted layer, under the names that the bare model has for its weights.

    One after the other; a tied weight, which a gathered state holds twice, comes once.
    """
    bare, state = model.get_base_model(), model.state_dict() if state is None else state
    layers = dict(bare.named_modules())
    for name, tensor in state.items():
        layer, _, leaf = name.removeprefix(INSIDE).rpartition(".base_layer.")
        if layer and leaf == "weight":
            wide = torch.promote_types(tensor.dtype, torch.float32)
            a, b = (state[f"{INSIDE}{layer}.lora_{side}.default.weight"].to(wide) for side in "AB")  # (r, in), (out, r)
            tensor = (tensor.to(wide) + layers[layer].scaling["default"] * b @ a).to(tensor.dtype)
        plain = f"{layer}.{leaf}" if layer else leaf
        if ".lora_" not in name and plain not in bare.all_tied_weights_keys:
            yield plain, tensor


def _targets(model: Any, family: Family, settings: Lora) -> set[str]:
    """Full names of the linear layers that get an adapter."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    heads = {name for name, module in linear.items() if module is model.get_output_embeddings()}
    tower = {name for name in linear if family.part(name) == "tower"}
    allowed = {n for n in linear if family.part(n) == "language"} - heads | (tower if settings.vision else set())
    if settings.target_modules == "all-linear":
        return allowed
    chosen: set[str] = set()
    for target in settings.target_modules:
        matching = {name for name in linear if f".{name}".endswith(f".{target}")}
        if matching & heads:
            raise ValueError(f"{KEY}: {target!r} is the head, which gets no adapter; take it out")
        if not matching & allowed:
            known = sorted({name.rpartition(".")[2] for name in allowed})
            mend = f"name one of {', '.join(difflib.get_close_matches(target, known, cutoff=0.5) or known)}"
            mend = "set trained.lora.vision to true" if matching & tower else mend
            raise ValueError(f"{KEY}: {target!r} is no linear layer of the language model; {mend}")
        chosen |= matching & allowed
    if settings.vision and not chosen & tower:
        raise ValueError("trained.lora.vision: no target lies in the vision tower; name one that does, or set it false")
    return chosen


def _local(base: str, revision: str | None = None) -> Path:
    """The folder of a base that may be named as on the hub, at a commit there; nothing is downloaded."""
    try:
        if Path(base).is_dir():
            return Path(base)
        return Path(snapshot_download(base, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        at = f"{base} at {revision}" if revision else base
        raise ValueError(f"{at}: neither a folder nor downloaded from the hub; name the base's folder") from error
