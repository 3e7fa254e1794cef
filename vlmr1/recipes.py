"""Recipes: overlays on params.yaml. Comments and order of params.yaml survive.

A recipe's value replaces the value of the same key; blocks are merged key by key, except the maps whose keys are
names of the user's own (sources, splits, rewards), which are replaced whole.
"""

from __future__ import annotations

import difflib
import io
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vlmr1.files import write_atomically
from vlmr1.scrubbed import scrubbed
from vlmr1.settings import PARAMS, Params, load_params, read_value, read_yaml
from vlmr1.under_way import between_runs

RECIPES = Path("recipes")
OTHERS = (PARAMS.name, "dvc.yaml", "prefect.yaml")  # of the project's folder, and no recipes
WORLDS = ("world.rec.splits", "world.ovd.splits", "world.math.splits", "world.gui.splits")
NAMED = ("data.sources", "gate.keep", "grpo.rewards", *WORLDS)


def apply(recipe: Path | None, sets: list[str], params: Path = PARAMS) -> list[str]:
    """Lay a recipe, if one is given, then KEY=VALUE pairs, over a params file. Returns a line for each changed key.

    Raises ValueError, with the params file as it was, when the outcome is not a valid one, or beneath a run.
    """
    text, _, changed = laid(recipe, sets, params)
    with between_runs(params.parent):
        write_atomically(params, text)
    return changed


def laid(recipe: Path | None, sets: list[str], params: Path = PARAMS) -> tuple[str, Params, list[str]]:
    """What a params file is with a recipe and KEY=VALUE pairs over it: text, settings, and a line for each changed key.

    Raises ValueError, naming what brought the fault (the file, the recipe or the pair), when it is not valid.
    """
    text, changed = _over(recipe, sets, params)
    try:
        return text, _checked(text), changed
    except ValueError as error:
        faults = str(error).splitlines()
    layers: list[tuple[str, Path | None, list[str]]] = [(str(params), None, [])]
    layers += [(str(recipe), recipe, [])] if recipe is not None else []
    layers += [(_told(pair), recipe, sets[: i + 1]) for i, pair in enumerate(sets)]
    first: dict[str, str] = {}  # fault: the first layer that has it
    for origin, first_over, then in layers:
        try:
            _checked(_over(first_over, then, params)[0])
        except ValueError as error:
            first = dict.fromkeys(str(error).splitlines(), origin) | first
    said = [f"{first[fault]}: {fault}" for fault in faults]
    if str(recipe) in {first[fault] for fault in faults}:
        said.append(f"if another recipe lies over {params}, `git checkout {params}` first")
    raise ValueError("\n".join(said))


def _over(recipe: Path | None, sets: list[str], params: Path) -> tuple[str, list[str]]:
    """The text, valid or not, and a line for each changed key."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 400
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _quoted)
    if not params.is_file():
        raise ValueError(f"no {params} here; run from the project's folder")
    if recipe is not None and not recipe.is_file():
        raise ValueError(f"{recipe}: no such recipe; {_near(recipe)}")
    base = read_yaml(params, yaml)
    changed: list[str] = []
    if recipe is not None:
        _merge(base, read_yaml(recipe, yaml), "", changed, str(recipe), NAMED)
    for pair in sets:
        key, overlay = _overlay(pair)
        _merge(base, overlay, "", changed, _told(pair), [key])
    text = io.StringIO()
    yaml.dump(base, text)
    return text.getvalue(), changed


def _quoted(representer: Any, text: str) -> Any:
    """An address in quotes: DVC reads none that stands plain within brackets."""
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "://" in text else None)


def _checked(text: str) -> Params:
    """The settings of a text. Raises ValueError with a line for each fault, which names no file."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / PARAMS.name
        draft.write_text(text, encoding="utf-8")
        try:
            return load_params(draft)
        except ValueError as error:
            raise ValueError(scrubbed(str(error).replace(f"{draft}: ", ""))) from None


def _overlay(pair: str) -> tuple[str, dict[str, Any]]:
    """The key of KEY=VALUE, and the mapping it stands for."""
    key, equals, value = pair.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"{_told(pair)}: write KEY=VALUE, e.g. data.root=data/mine")
    overlay: Any = read_value(scrubbed(pair), value)
    for part in reversed(key.split(".")):
        overlay = {part: overlay}
    return key, overlay


def _told(pair: str) -> str:
    """A pair as messages repeat it."""
    return scrubbed(f"-S {pair}")


def _near(recipe: Path) -> str:
    """What may have been meant by a recipe that is not there: a known one of that name, or one of its folder."""
    beside = {path for path in recipe.parent.glob("*.yaml") if path.name not in OTHERS}
    known = sorted(str(path) for path in {*beside, *RECIPES.glob("*.yaml")})
    stems = {Path(path).stem: path for path in known}
    near = difflib.get_close_matches(recipe.stem, stems, n=1)
    return f"did you mean {stems[near[0]]}?" if near else f"there are: {', '.join(known) or 'none'}"


def _merge(
    base: Any, overlay: dict[str, Any], prefix: str, changed: list[str], origin: str, whole: Collection[str]
) -> None:
    """Lay one mapping over another. Those in `whole` replace what was there; of others each key does so by itself."""
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        if key not in base and prefix.removesuffix(".") not in NAMED:
            raise ValueError(f"{origin}: {path}: params.yaml has no such key")
        if isinstance(value, dict) and isinstance(base.get(key), dict) and path not in whole:
            _merge(base[key], value, f"{path}.", changed, origin, whole)
        elif key not in base or base[key] != value:
            base[key] = value
            changed.append(scrubbed(f"{path}: {value if not isinstance(value, dict) else ', '.join(value)}"))
