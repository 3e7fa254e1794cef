"""One checkpoint asked every question of its sources, and what is left of that: for the stage, a command, the gate.

Questions are asked in chunks (`vlmr1.evaluation.asking`), each process its share; the first gathers and writes. What a
killed run had answered is not asked again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmr1.evaluation.asking import Asked, Chunk, ask, chunks_of, gathered, one_by_one
from vlmr1.evaluation.summary import summarise
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.launch import is_first, place, wait_for_all
from vlmr1.measures import EXTRAS, TITLES
from vlmr1.progress import progress
from vlmr1.sample import Source, load_sources, write_jsonl
from vlmr1.settings import Compute, Evaluate, Params
from vlmr1.work import fingerprint_of, inputs_of, open_work, told

Figures = dict[str, dict[str, Any]]  # by source and way


def settings_of(params: Params, converted: Path) -> dict[str, Any]:
    """What answers depend on besides the checkpoint and the code, as plain data, the items by their content."""
    of: dict[str, Any] = {"evaluate": params.evaluate.model_dump(exclude={"servers", "served_as", "timeout"})}
    of["compute"] = told(params.compute)
    sources = load_sources(converted, "evaluate")
    return of | {"max_pixels": params.asked_pixels, "data": inputs_of(converted / "evaluate", sources)}


def evaluate(params: Params, checkpoint: Path, converted: Path, work: Path, target: Path) -> Figures | None:
    """Fill `target` with SOURCE-WAY.jsonl, figures.json and settings.json; the figures by source and way.

    `work` keeps what is half done and is removed at the end. None on every process but the first.
    """
    sources = load_sources(converted, "evaluate")
    open_work(work, lambda: {**settings_of(params, converted), "checkpoint": fingerprint_of(checkpoint)})
    chunks, model = ask_all(checkpoint, sources, params.evaluate, params.compute, params.asked_pixels, work)
    if not is_first():
        return None
    with whole_folder(target) as folder:
        figures = leave_results(folder, sources, params.evaluate, work, chunks, model)
    shutil.rmtree(work)
    return figures


def ask_all(
    checkpoint: Path, sources: Sequence[Source], settings: Evaluate, compute: Compute, max_pixels: int, work: Path
) -> tuple[list[Chunk], dict[str, Any]]:
    """Have this process's share of the questions answered into `work`, and wait for the other processes.

    Returns all chunks, and what of the model shaped its answers.
    """
    from vlmr1.evaluation.engines import InProcess  # torch, wanted only here
    from vlmr1.evaluation.over_http import OverHttp

    asking = settings.asking
    wait_for_all()  # the first may have cleared what another run left
    if settings.engine == "http":
        servers = OverHttp(checkpoint, settings, max_pixels)
        asked: Asked = servers.ask
        batch, told = 1, servers.about  # an item a chunk: each answer is kept as it comes
    else:
        model = InProcess(checkpoint, compute, max_pixels, asking.seed, asking.max_new_tokens)
        asked, batch, told = one_by_one(model.ask), settings.batch, model.about
    chunks = chunks_of(sources, asking, batch)
    mine, of = place()
    share = sum(len(chunk.samples) for chunk in chunks if chunk.number % of == mine)
    if is_first():
        with progress(f"asking {checkpoint.name}", share) as bar:
            ask(work, chunks, asked, bar.update)
    else:
        ask(work, chunks, asked, lambda items: None)
    wait_for_all()
    return chunks, told() | {"max_pixels": max_pixels}


def leave_results(
    folder: Path,
    sources: Sequence[Source],
    settings: Evaluate,
    work: Path,
    chunks: Sequence[Chunk],
    about: Mapping[str, Any],
) -> Figures:
    """Write predictions, settings.json and, last, figures.json into `folder`; returns the figures."""
    asking, figures = settings.asking, Figures({source.name: {} for source in sources})
    for source, way, rows in gathered(work, chunks, asking):
        write_jsonl(folder / f"{source.name}-{way}.jsonl", rows)
        figures[source.name][way] = rounded(summarise(rows, source.samples))
    said = {"protocol": settings.protocol, **asking.model_dump(), "batch": settings.batch, **about}
    write_json(folder / "settings.json", said)
    write_json(folder / "figures.json", figures)
    return figures


def line(figures: Mapping[str, Any]) -> str:
    """The judged figure of a source with its interval, what is told beside it, and n."""
    key = figures["judged"]
    also = "".join(f", {label} {figures[extra]:.3f}" for extra, label in EXTRAS[key].items() if extra in figures)
    bounds = f"[{figures[f'{key}_low']:.3f}, {figures[f'{key}_high']:.3f}]"
    return f"{TITLES[key]} {figures[key]:.3f} {bounds}{also}, n {figures['n']}"
