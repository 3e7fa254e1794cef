"""A trained adapter as it is published: by itself, with the base it was trained on pinned.

`base.json` says which base (a name on the hub with its commit, NAME@VERSION of a release, or a folder's name) and the
digest of its weights, which `vlmr1 merge` checks. Works on the files alone, without torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from vlmr1.files import write_json

ADAPTER = "adapter"  # where training leaves it, below the whole checkpoint
CONFIG, BASE = "adapter_config.json", "base.json"


def pinned(adapter: Path, base: dict[str, Any], folder: Path) -> None:
    """Copy an adapter into a folder, its base named by `base` (see `manifest.Base`) instead of by a path of here."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    named = {
        "hub": base["model"],
        "release": f"{base['model']}@{base['revision']}",
        "folder": base["model"],
        "built": "base",
    }[base["kind"]]
    revision = base["revision"] if base["kind"] == "hub" else None
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    write_json(folder / CONFIG, {**config, "base_model_name_or_path": named, "revision": revision})
    card = json.loads((folder / BASE).read_text(encoding="utf-8"))
    write_json(folder / BASE, {**card, "base": named, "revision": revision})
