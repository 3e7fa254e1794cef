"""Conversion without the pipeline: `vlmr1 convert`, any list of a known format to the original project's JSONL.

Rows go out as they come in: nothing is judged (the validate stage does that), and a row that cannot be converted ends
the work with its name. Pictures are referenced, or stored in a folder for copies, shrunk with their boxes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from vlmr1.conversion import Pictures, samples
from vlmr1.progress import counted, progress
from vlmr1.sample import Sample, to_json, write_jsonl
from vlmr1.settings import SourceSpec, explain, read_value
from vlmr1.sources import read_source
from vlmr1.tasks import TASKS

# What a format's keys are unless -S says otherwise; in params.yaml each is written out. docs/your-own-data.md has them.
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
ASKED = {"ovdeval": "listed", "d3": "intra"}
DETECTION = ("coco", "lvis", "ovdeval", "d3", "voc")  # formats whose `reward` is one of task ovd
GIVEN = {"format": "--source", "annotations": "--annotations", "images": "--images"}  # by options of their own
MAX_PIXELS = 401408  # of a stored picture, unless --max-pixels says otherwise


@dataclass(frozen=True, slots=True)
class List:
    """One list of annotations, and what becomes of its pictures' names."""

    name: str  # of its samples' source
    images: Path  # its picture folder
    store: Path | None  # where copies of its pictures go
    prefix: str  # of its pictures' names in the output
    root: Path  # to which its block's paths are relative
    spec: Any


@dataclass(frozen=True, slots=True)
class Done:
    """What was written, and what is worth saying about it."""

    samples: int
    notes: tuple[str, ...]


def formats() -> tuple[str, ...]:
    """Every format that a source may have."""
    blocks = get_args(get_args(SourceSpec)[0])
    return tuple(name for block in blocks for name in get_args(block.model_fields["format"].annotation))


def spec_of(source: str, annotations: Path, images: Path, sets: Sequence[str]) -> tuple[Any, Path]:
    """The source's block, and the root of its paths. Raises ValueError naming the key and the mend."""
    block = next(
        b for b in get_args(get_args(SourceSpec)[0]) if source in get_args(b.model_fields["format"].annotation)
    )
    values: dict[str, Any] = {key: DEFAULTS[key] for key in block.model_fields if key in DEFAULTS}
    if source in ASKED:
        values["asked"] = ASKED[source]
    given: dict[str, Any] = {}
    for pair in sets:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"-S {pair}: write KEY=VALUE, e.g. split=val")
        if key in GIVEN or key == "role":
            mend = f"give it as {GIVEN[key]}" if key in GIVEN else "roles belong to params.yaml; leave it out"
            raise ValueError(f"-S {pair}: {mend}")
        given[key] = read_value(pair, text)
    values |= given
    if "reward" in block.model_fields and "reward" not in given:
        task = _task(source, values)
        values["reward"] = TASKS[task].METHODS[0] if task in TASKS else None
    if source == "d3" and "negatives" not in given:
        del values["negatives"]  # of asked: train alone, which must say how many
        if values["asked"] != "train":
            values["negatives"] = None
    lists, folder = _real(annotations), images.resolve()
    root = Path(folder.anchor)
    where = {"annotations": lists.relative_to(root).as_posix(), "images": folder.relative_to(root).as_posix()}
    values |= {"format": source, "role": "train", **where}
    try:
        spec = TypeAdapter(SourceSpec).validate_python(values)
    except ValidationError as error:
        lines = [explain(Path(f"--source {source}"), {**fault, "loc": fault["loc"][1:]}) for fault in error.errors()]
        said = "\n".join(line.replace("add it, every key is said", "give it, -S KEY=VALUE") for line in lines)
        raise ValueError(said) from None
    _check_reward(source, getattr(spec, "reward", None), _task(source, values))
    return spec, root


def _real(path: Path) -> Path:
    """An absolute path without `..`; a list keeps its own name, though it be a link."""
    return path.resolve() if path.is_dir() else path.parent.resolve() / path.name


def _task(source: str, values: dict[str, Any]) -> Any:
    """The task of a format's rows; None where rows name their own."""
    return values.get("task") if source in ("table", "jsonl") else "ovd" if source in DETECTION else "math"


def _check_reward(source: str, reward: str | None, task: str | None) -> None:
    """Raises ValueError for a reward that the task has not; `auto` is the readers' own, where a format has it."""
    if reward is None or reward == "auto":
        return
    known = TASKS[task].METHODS if task else tuple(dict.fromkeys(m for one in TASKS.values() for m in one.METHODS))
    if reward not in known:
        near = difflib.get_close_matches(reward, known, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        of = f"task {task}" if task else "any task"
        raise ValueError(f"--source {source}: reward: {reward!r} is none of {of}; {meant}One of {', '.join(known)}")


def convert(
    source: str,
    lists: Sequence[tuple[Path, Path]],
    output: Path,
    sets: Sequence[str],
    store: Path | None,
    max_pixels: int | None,
) -> Done:
    """Write the samples of several lists of one format, each (annotations, picture folder).

    Ids count on through the lists. Picture names are relative to the picture folder, or, of lists whose folders differ,
    to the deepest folder that has them all; stored pictures to `store`, where each such list has a folder of its name.
    Raises ValueError or FileNotFoundError naming list, row and mend; then `output` is what it was.
    """
    if max_pixels is not None and store is None:
        raise ValueError("--max-pixels: only stored pictures are shrunk; give --store-pictures DIR, or leave it out")
    if max_pixels is not None and max_pixels < 1:
        raise ValueError(f"--max-pixels {max_pixels}: at least 1 is needed")
    _check_targets(lists, output, store)
    chosen, notes = _placed(source, lists, sets, store), []
    if len({one.images for one in chosen}) > 1:
        notes.append(f"picture names are relative to {store or commonpath([one.images for one in chosen])}")

    def made() -> Iterator[Sample]:
        first = 0
        for one in chosen:
            pictures = Pictures(one.images, one.store, MAX_PIXELS if max_pixels is None else max_pixels)
            with progress(f"converting {one.name}", None) as bar:
                rows = counted(read_source(one.spec, one.root), bar)
                last = first
                for sample in samples(rows, frozenset(), pictures, one.name, getattr(one.spec, "split", one.name)):
                    last = first + sample.id
                    images = tuple(str(PurePosixPath(one.prefix, name)) for name in sample.images)
                    yield replace(sample, id=last, images=images if one.prefix else sample.images)
            first = last + 1
            if missing := pictures.missing():
                notes.append(
                    f"{len(missing)} of the {len(pictures.paths)} pictures of {one.name} are not in {one.images},"
                    f" e.g. {missing[0]}"
                )

    count = write_jsonl(output, map(to_json, made()))
    return Done(count, tuple(notes))


def _placed(source: str, lists: Sequence[tuple[Path, Path]], sets: Sequence[str], store: Path | None) -> list[List]:
    """The lists, with the places of their pictures. Raises ValueError for two that would have one place."""
    folders = [images.resolve() for _, images in lists]
    several = len(set(folders)) > 1
    found: list[List] = []
    for (path, _), images in zip(lists, folders, strict=True):
        own = store and (store / path.stem if several else store)
        prefix = "" if not several else path.stem if store else images.relative_to(commonpath(folders)).as_posix()
        if several and own in [one.store for one in found] and own is not None:
            raise ValueError(f"--annotations {path}: two lists are named {path.stem}; convert them one at a time")
        spec, root = spec_of(source, path, images, sets)
        found.append(List(path.stem, images, own, prefix, root, spec))
    return found


def _check_targets(lists: Sequence[tuple[Path, Path]], output: Path, store: Path | None) -> None:
    """Raises ValueError for a target that would replace what is read, FileNotFoundError for a missing folder."""
    if output.suffix != ".jsonl":
        raise ValueError(f"--output {output}: samples are JSON Lines; end its name in .jsonl")
    for path, images in lists:
        if not images.is_dir():
            raise FileNotFoundError(f"--images {images}: no such folder")
        if output.resolve() == path.resolve() or output.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"--output {output}: it would replace what is read from {path}; write it elsewhere")
        if store is None:
            continue
        for read in (images.resolve(), path.resolve()):
            if read.is_relative_to(store.resolve()) or store.resolve().is_relative_to(read):
                raise ValueError(
                    f"--store-pictures {store}: copies could replace what is read from {read}; store them in a folder"
                    " apart from it"
                )
