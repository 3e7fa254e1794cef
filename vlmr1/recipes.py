"""Recipes: overlays on params.yaml. Comments and order of params.yaml survive.

A recipe's value replaces the value of the same key; blocks are merged key by key, except the maps whose keys are
names of the user's own (sources, splits, rewards), which are replaced whole.
"""

from __future__ import annotations

import difflib
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vlmr1.files import write_atomically
from vlmr1.settings import PARAMS, load_params, read_value, read_yaml

RECIPES = Path("recipes")
WORLDS = ("world.rec.splits", "world.ovd.splits", "world.math.splits", "world.gui.splits")
NAMED = ("data.sources", "gate.keep", "grpo.rewards", *WORLDS)


def apply(recipe: Path | None, sets: list[str], params: Path = PARAMS) -> list[str]:
    """Lay a recipe, if one is given, then KEY=VALUE pairs, over a params file. Returns a line for each changed key.

    Raises ValueError, with the params file as it was, when the outcome is not a valid one.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 400
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    if not params.is_file():
        raise ValueError(f"no {params} here; run from the project's folder")
    if recipe is not None and not recipe.is_file():
        raise ValueError(f"{recipe}: no such recipe; {_near(recipe)}")
    base = yaml.load(params)
    changed: list[str] = []
    if recipe is not None:
        read_yaml(recipe)  # refuses what is no mapping
        _merge(base, yaml.load(recipe), "", changed, recipe)
    for pair in sets:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"-S {pair}: write KEY=VALUE, e.g. data.root=data/mine")
        overlay: Any = read_value(pair, value)
        for part in reversed(key.split(".")):
            overlay = {part: overlay}
        _merge(base, overlay, "", changed, Path(f"-S {pair}"))
    text = io.StringIO()
    yaml.dump(base, text)
    draft = params.with_name(f".{params.name}.draft")
    write_atomically(draft, text.getvalue())
    try:
        load_params(draft)
    except ValueError as error:
        said = str(error).replace(str(draft), str(recipe or params))
        raise ValueError(f"{said}\nif another recipe lies over params.yaml, `git checkout params.yaml` first") from None
    finally:
        draft.unlink()
    write_atomically(params, text.getvalue())
    return changed


def _near(recipe: Path) -> str:
    """What may have been meant by a recipe that is not there: a known one of that name, or one of its folder."""
    known = sorted(str(path) for path in {*recipe.parent.glob("*.yaml"), *RECIPES.glob("*.yaml")} if path != PARAMS)
    stems = {Path(path).stem: path for path in known}
    near = difflib.get_close_matches(recipe.stem, stems, n=1)
    return f"did you mean {stems[near[0]]}?" if near else f"there are: {', '.join(known) or 'none'}"


def _merge(base: Any, overlay: dict[str, Any], prefix: str, changed: list[str], origin: Path) -> None:
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        if key not in base:
            raise ValueError(f"{origin}: {path}: params.yaml has no such key")
        if isinstance(value, dict) and isinstance(base[key], dict) and path not in NAMED:
            _merge(base[key], value, f"{path}.", changed, origin)
        elif base[key] != value:
            base[key] = value
            changed.append(f"{path}: {value if not isinstance(value, dict) else ', '.join(value)}")
