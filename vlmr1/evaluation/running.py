"""One checkpoint on every evaluation source: what the evaluate stage does for a policy, and the gate for a release.

On one process or many, each answers its share and the first gathers. What a killed run had answered is not asked again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vlmr1.evaluation.asking import ask, chunks_of, gathered
from vlmr1.evaluation.summary import summarise
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.launch import is_first, place, wait_for_all
from vlmr1.progress import progress
from vlmr1.sample import load_sources, write_jsonl
from vlmr1.settings import Params
from vlmr1.work import fingerprint_of, inputs_of, open_work, told


def settings_of(params: Params, converted: Path) -> dict[str, Any]:
    """What answers depend on besides the checkpoint and the code, as plain data, the items by their content."""
    of: dict[str, Any] = {"evaluate": params.evaluate.model_dump(), "compute": told(params.compute)}
    sources = load_sources(converted, "evaluate")
    return of | {"max_pixels": params.convert.max_pixels, "data": inputs_of(converted / "evaluate", sources)}


def evaluate(params: Params, checkpoint: Path, converted: Path, work: Path, target: Path) -> dict[str, Any] | None:
    """Fill `target` with SOURCE-WAY.jsonl, figures.json and settings.json; the figures by source and way.

    `work` keeps what is half done and is removed at the end. None on every process but the first.
    """
    from vlmr1.evaluation.engines import InProcess  # torch, wanted only here

    settings, asking = params.evaluate, params.evaluate.asking
    sources = load_sources(converted, "evaluate")
    open_work(work, lambda: {**settings_of(params, converted), "checkpoint": fingerprint_of(checkpoint)})
    wait_for_all()  # the first may have cleared what another run left
    engine = InProcess(checkpoint, params.compute, params.convert.max_pixels, asking.seed, asking.max_new_tokens)
    chunks = chunks_of(sources, asking, settings.batch)
    mine, of = place()
    share = sum(len(chunk.samples) for chunk in chunks if chunk.number % of == mine)
    if is_first():
        with progress(f"asking {target.name}", share) as bar:
            ask(work, chunks, engine.ask, bar.update)
    else:
        ask(work, chunks, engine.ask, lambda items: None)
    wait_for_all()
    if not is_first():
        return None
    figures: dict[str, dict[str, Any]] = {source.name: {} for source in sources}
    with whole_folder(target) as folder:
        for source, way, rows in gathered(work, chunks, asking):
            write_jsonl(folder / f"{source.name}-{way}.jsonl", rows)
            figures[source.name][way] = rounded(summarise(rows, source.samples))
        write_json(folder / "figures.json", figures)
        write_json(
            folder / "settings.json",
            {"protocol": settings.protocol, **asking.model_dump(), "batch": settings.batch}
            | {"max_pixels": params.convert.max_pixels, "dtype": params.compute.dtype, **engine.about()},
        )
    shutil.rmtree(work)
    return figures
