"""Evaluation without the pipeline: `vlmr1 evaluate`, a checkpoint of one's own on JSONL lists of one's own.

The lists are those of `vlmr1 train grpo`, read alike; asked, judged and written as the evaluate stage does it. Settings
start from `alone.yaml` beside this file. OUT gets predictions, settings.json and figures.json; while it runs OUT/work
holds what is answered already, from which a repeated command goes on.
Left out on purpose: validation of pictures and boxes, which the pipeline's first stage does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from vlmr1.evaluation.running import Figures, ask_all, leave_results, line
from vlmr1.launch import is_first
from vlmr1.sample import Source
from vlmr1.settings import Asking, Block, Compute, Evaluate, explain, read_yaml
from vlmr1.train import lay_over, load_jsonl
from vlmr1.work import fingerprint_of, open_work, pictures_of, told

DEFAULTS = Path(__file__).with_name("alone.yaml")


class Alone(Block):
    """All that an evaluation is told."""

    compute: Compute
    evaluate: Evaluate

    @model_validator(mode="after")
    def _bounded(self) -> Alone:
        if self.evaluate.max_pixels is None:
            raise ValueError("evaluate.max_pixels: is needed where no conversion says it")
        return self


def defaults(sets: Sequence[str] = ()) -> Alone:
    """The settings of alone.yaml with KEY=VALUE pairs laid over; a key without a block is one of evaluate's.

    With a protocol, the keys that it says are its own. Raises ValueError with a line for each fault.
    """
    values = read_yaml(DEFAULTS)
    given = lay_over(values, sets, "evaluate")
    if values["evaluate"].get("protocol") is not None:
        values["evaluate"] |= {key: None for key in Asking.model_fields if f"evaluate.{key}" not in given}
    try:
        return Alone.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(explain(Path("-S"), fault) for fault in error.errors())) from None


def load(lists: Sequence[tuple[Path, Path, str | None]]) -> list[Source]:
    """The lists as sources, items named by their 0-based places. Raises ValueError naming file, line and the mend."""
    sources = [load_jsonl(*one) for one in lists]
    names = [source.name for source in sources]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--data: two lists are named {double[0]}; rename one, for predictions bear their names")
    for source in sources:
        for sample in source.samples:
            if missing := [path for path in source.pictures(sample) if not path.is_file()]:
                raise ValueError(f"{source.name} id {sample.id}: picture {missing[0]} is not there; mend --images")
    return [
        replace(s, role="evaluate", samples=tuple(replace(one, id=place) for place, one in enumerate(s.samples)))
        for s in sources
    ]


def evaluate(checkpoint: Path, sources: Sequence[Source], chosen: Alone, output: Path) -> Figures | None:
    """Ask the checkpoint, and leave the results in `output`; the first process returns the figures.

    Raises ValueError where `output` holds results, or `checkpoint` is no checkpoint.
    """
    if (output / "figures.json").exists():
        raise ValueError(f"--output {output}: holds a finished evaluation, figures.json; name another, or remove it")
    if not (checkpoint / "config.json").is_file():
        raise ValueError(f"{checkpoint}: no checkpoint folder, for it has no config.json")

    def about() -> dict[str, Any]:
        of = chosen.model_dump(mode="json", exclude={"evaluate": {"servers", "timeout"}})
        of |= {"compute": told(chosen.compute), "model": fingerprint_of(checkpoint)}
        listed = [[repr(sample) for sample in source.samples] for source in sources]
        return of | {"data": {"rows": listed, "pictures": pictures_of(sources)}}

    work = open_work(output / "work", about)
    pixels = chosen.evaluate.max_pixels
    assert pixels is not None  # Alone holds this
    chunks, model = ask_all(checkpoint, sources, chosen.evaluate, chosen.compute, pixels, work)
    if not is_first():
        return None
    figures = leave_results(output, sources, chosen.evaluate, work, chunks, model | {"checkpoint": str(checkpoint)})
    shutil.rmtree(work)
    return figures


def table(figures: Figures) -> str:
    """A line for each source and way."""
    wide = max(len(f"{name} {way}") for name, ways in figures.items() for way in ways)
    return "\n".join(
        f"{f'{name} {way}':{wide}}  {line(f)}" for name, ways in figures.items() for way, f in ways.items()
    )
