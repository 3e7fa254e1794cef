"""Questions to begin with: a few of each embedded world, drawn when the page first asks for them.

`examples.yaml` beside this file says which. Nothing of the user's is read.
"""

from __future__ import annotations

import base64
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vlmr1.rows import Row
from vlmr1.settings import read_yaml
from vlmr1.settings.sources import SourceSpec
from vlmr1.settings.world import World
from vlmr1.sources import read_source, whole
from vlmr1.tasks import TASKS
from vlmr1.world.dataset import write_world

EXAMPLES = Path(__file__).with_name("examples.yaml")


@cache
def examples() -> list[dict[str, Any]]:
    """Each with its name, task, question, truth, reward, and pictures as data URLs."""
    chosen = read_yaml(EXAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        write_world(World.model_validate(chosen["world"]), Path(folder), lambda _: None)
        found = []
        for name, said in chosen["sources"].items():
            spec = TypeAdapter(SourceSpec).validate_python(said)
            rows = whole(read_source(spec, Path(folder)))
            found += [_example(name, row, Path(folder, spec.images)) for row in rows]
    return found


def _example(name: str, row: Row, images: Path) -> dict[str, Any]:
    truth = TASKS[row.task].solution(row)
    if row.task == "ovd" and row.boxes:
        listed = [{"bbox_2d": list(box), "label": label} for box, label in zip(row.boxes, row.labels, strict=True)]
        truth = json.dumps(listed)
    return {
        "name": f"{name}: {row.row + 1}",
        "task": row.task,
        "text": ", ".join(row.asked) if row.task == "ovd" else row.text,
        "truth": truth,
        "reward": row.reward,
        "pictures": [_data_url((images / image).read_bytes()) for image in row.images],
    }


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
