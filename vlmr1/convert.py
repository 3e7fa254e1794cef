"""Conversion without the pipeline: `vlmr1 convert`, any list of a known format to the original project's JSONL.

Rows go out as they come in: nothing is judged (the validate stage does that), and a row that cannot be converted ends
the work with its name. Pictures are referenced, or stored in a folder for copies, shrunk with their boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from vlmr1.conversion import Pictures, samples
from vlmr1.progress import counted, progress
from vlmr1.sample import Sample, to_json, write_jsonl
from vlmr1.settings import SourceSpec, explain, read_value
from vlmr1.sources import read_source

# What a format's keys are unless -S says otherwise; in params.yaml each is written out.
DEFAULTS: dict[str, Any] = {
    "frame": "pixels",
    "polygons": "all",
    "keep": "all",
    "negatives": 0,
    "crowd": "drop",
    "sentences": "full",
    "task": None,
    "only": None,
    "corners": "pascal",
    "seed": 1,
}
REWARDS = {"coco": "odLength", "lvis": "odLength", "ovdeval": "odLength", "d3": "odLength", "voc": "odLength"}
ASKED = {"ovdeval": "listed", "d3": "intra"}


def formats() -> tuple[str, ...]:
    """Every format that a source may have."""
    blocks = get_args(get_args(SourceSpec)[0])
    return tuple(name for block in blocks for name in get_args(block.model_fields["format"].annotation))


def spec_of(source: str, annotations: Path, images: Path, sets: Sequence[str]) -> Any:
    """The source's block. Raises ValueError naming the key and the mend."""
    block = next(
        b for b in get_args(get_args(SourceSpec)[0]) if source in get_args(b.model_fields["format"].annotation)
    )
    values: dict[str, Any] = {key: DEFAULTS[key] for key in block.model_fields if key in DEFAULTS}
    for key, of in (("reward", REWARDS), ("asked", ASKED)):
        if key in block.model_fields:
            values[key] = of.get(source, "default" if key == "reward" else None)
    for pair in sets:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"-S {pair}: write KEY=VALUE, e.g. split=val")
        values[key] = read_value(pair, text)
    where = {"annotations": str(annotations.absolute()), "images": str(images.absolute())}
    values |= {"format": source, "role": "train", **where}
    if source == "d3" and values["asked"] != "train":
        values["negatives"] = None
    try:
        return TypeAdapter(SourceSpec).validate_python(values)
    except ValidationError as error:
        lines = [explain(Path(f"--source {source}"), {**fault, "loc": fault["loc"][1:]}) for fault in error.errors()]
        said = "\n".join(line.replace("add it, every key is said", "give it, -S KEY=VALUE") for line in lines)
        raise ValueError(said) from None


def convert(
    source: str,
    lists: Sequence[tuple[Path, Path]],
    output: Path,
    sets: Sequence[str],
    store: Path | None,
    max_pixels: int,
) -> int:
    """Write the samples of several lists of one format, each (annotations, picture folder). Returns how many.

    Ids count on through the lists. Raises ValueError or FileNotFoundError naming list, row and mend; then `output` is
    what it was.
    """
    specs = [(annotations, images, spec_of(source, annotations, images, sets)) for annotations, images in lists]

    def made() -> Iterator[Sample]:
        first = 0
        for path, images, spec in specs:
            pictures = Pictures(images, store, max_pixels)
            with progress(f"converting {path.name}", None) as bar:
                rows = counted(read_source(spec, Path()), bar)
                split, last = getattr(spec, "split", path.stem), first
                for sample in samples(rows, frozenset(), pictures, path.stem, split):
                    last = first + sample.id
                    yield replace(sample, id=last)
            first = last + 1

    return write_jsonl(output, map(to_json, made()))
