"""Asking in chunks: what is asked together, by which process, and what of it is already answered.

Questions about one picture stand side by side, so that a chunk reads the picture once. A chunk is the same whatever
the number of processes, and so are its answers. Each process appends its chunks to a file of its own, a line each; a
half-written last line is what a kill leaves, and is dropped.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vlmr1.files import rounded
from vlmr1.launch import place
from vlmr1.sample import Sample, Source, lines_of
from vlmr1.settings import Asking

Rows = list[dict[str, Any]]
Keep = Callable[["Chunk", Rows], None]
Asked = Callable[[Sequence["Chunk"], Keep], None]  # has chunks answered, in any order, and each kept as soon as it is
Item = TypeVar("Item")


@dataclass(frozen=True)
class Chunk:
    """Items of one source that are asked together."""

    number: int
    source: Source
    way: str
    temperature: float  # 0 is greedy
    completions: int  # of each item
    samples: tuple[Sample, ...]


def choose(samples: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """All samples, or the first `limit` of a seeded shuffle, as `random.seed` and `random.shuffle` make it."""
    if limit is None or limit >= len(samples):
        return list(samples)
    shuffled = list(samples)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:limit]


def chunks_of(sources: Sequence[Source], asking: Asking, batch: int) -> list[Chunk]:
    """Everything that is to be asked; at most `batch` completions at once, if one item's are no more than that."""
    found: list[Chunk] = []
    for source in sources:
        chosen = by_picture(choose(source.samples, asking.limit, asking.seed))
        for way, temperature, completions in asking.ways:
            size = max(1, batch // completions)
            for start in range(0, len(chosen), size):
                part = tuple(chosen[start : start + size])
                found.append(Chunk(len(found), source, way, temperature, completions, part))
    return found


def by_picture(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with those about one picture side by side, pictures in the order of their first question."""
    kin: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        # Prompts share what they begin with, which is their first picture.
        kin.setdefault(sample.images[:1] or (f"#{sample.id}",), []).append(sample)
    return [sample for group in kin.values() for sample in group]


def ask(work: Path, chunks: Sequence[Chunk], asked: Asked, told: Callable[[int], object]) -> None:
    """Ask this process's share of the chunks, but for those whose answers an earlier attempt left in `work`.

    `told` hears of every chunk of the share how many items it has.
    """
    mine, of = place()
    done = answers_in(work).keys()
    path = work / f"answers-{mine}.jsonl"
    _mend(path)
    share = [chunk for chunk in chunks if chunk.number % of == mine]
    told(sum(len(chunk.samples) for chunk in share if chunk.number in done))
    with path.open("a", encoding="utf-8") as file:

        def keep(chunk: Chunk, rows: Rows) -> None:
            file.write(json.dumps({"chunk": chunk.number, "rows": rounded(rows)}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            told(len(chunk.samples))

        asked([chunk for chunk in share if chunk.number not in done], keep)


def one_by_one(answers: Callable[[Chunk], Rows]) -> Asked:
    """Chunks asked one after another."""

    def asked(chunks: Sequence[Chunk], keep: Keep) -> None:
        for chunk in chunks:
            keep(chunk, answers(chunk))

    return asked


def answers_in(work: Path) -> dict[int, Rows]:
    """The answers of every chunk that any process has answered."""
    return {line["chunk"]: line["rows"] for path in sorted(work.glob("answers-*.jsonl")) for line in _whole(path)}


def gathered(work: Path, chunks: Sequence[Chunk], asking: Asking) -> Iterator[tuple[Source, str, Rows]]:
    """Source, way and rows of everything that was asked, items back in the order of their source or its shuffle."""
    answers = answers_in(work)
    found: dict[tuple[str, str], dict[int, Rows]] = {}
    sources = {chunk.source.name: chunk.source for chunk in chunks}
    for chunk in chunks:
        for row in answers[chunk.number]:
            found.setdefault((chunk.source.name, chunk.way), {}).setdefault(row["index"], []).append(row)
    for (name, way), by_item in found.items():
        order = choose(sources[name].samples, asking.limit, asking.seed)
        yield sources[name], way, [row for sample in order for row in by_item[sample.id]]


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    for line in lines_of(path.read_text(encoding="utf-8", errors="replace")):  # a kill may halve a character
        yield json.loads(line)


def _mend(path: Path) -> None:
    """Cut off a last line that is not whole, so that the next one starts where it should."""
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
