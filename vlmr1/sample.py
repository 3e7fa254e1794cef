"""`Sample`: the one record that travels from converter to trainer to evaluator, and its JSONL form.

On disk a line is a superset of the original project's training JSONL: `id`, `image`, `conversations`,
`accu_reward_method`; ours adds `task`, `source`, `split`, `size`, `group` and `kind`. Every column has one type.
Coordinates are pixels of the stored picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmr1.boxes import Size
from vlmr1.files import inside

PLACE = "<image>"
_TAGGED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?(.*)```\s*", re.DOTALL)


@dataclass(frozen=True)
class Sample:
    """A question about pictures whose answer can be checked."""

    id: int
    images: tuple[str, ...]  # relative to the source's picture folder
    problem: str  # the bare question, `<image>` where pictures stand inside it, else they stand before it
    solution: str  # the truth as text, e.g. "[12, 30, 80, 95]"
    task: str  # which of vlmr1.tasks
    reward: str  # the accuracy reward's name
    source: str
    split: str
    sizes: tuple[Size, ...]  # (width, height) of each stored picture; () where they are unknown, never with boxes
    group: str = ""  # samples of one group are judged together, e.g. variants of one question
    kind: str = ""  # what a report tells apart, e.g. a subject or a kind of expression


def to_json(sample: Sample) -> dict[str, Any]:
    """The JSONL line as a dict, keys in a fixed order."""
    places = "" if PLACE in sample.problem else PLACE * len(sample.images)
    return {
        "id": sample.id,
        "image": list(sample.images),
        "conversations": [
            {"from": "human", "value": places + sample.problem},
            {"from": "gpt", "value": sample.solution},
        ],
        "accu_reward_method": sample.reward,
        "task": sample.task,
        "source": sample.source,
        "split": sample.split,
        "size": [list(size) for size in sample.sizes],
        "group": sample.group,
        "kind": sample.kind,
    }


def from_json(row: dict[str, Any]) -> Sample:
    """The reverse of `to_json`. Raises KeyError or TypeError on a row of another shape."""
    images = [row["image"]] if isinstance(row["image"], str) else row["image"]
    human, gpt = row["conversations"][:2]
    before = PLACE * len(images)
    problem = human["value"].removeprefix(before)
    return Sample(
        id=row["id"],
        images=tuple(images),
        problem=human["value"] if PLACE in problem else problem,
        solution=gpt["value"],
        task=row["task"],
        reward=row["accu_reward_method"],
        source=row["source"],
        split=row["split"],
        sizes=tuple((w, h) for w, h in row["size"]),
        group=row.get("group", ""),
        kind=row.get("kind", ""),
    )


def untagged(answer: str) -> str:
    """An answer without the `<answer>` tags that the original project's lists may have around it."""
    tagged = _TAGGED.fullmatch(answer)
    return tagged[1].strip() if tagged else answer


def unfenced(answer: str) -> str:
    """An answer without the fence of Markdown that may stand around its JSON."""
    fenced = _FENCED.fullmatch(answer)
    return fenced[1].strip() if fenced else answer


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line as they come, atomically, with stable bytes. Returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, count = path.with_name(f".{path.name}.tmp"), 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def saved_as(content: bytes) -> str:
    """The mend of bytes that are no UTF-8."""
    packed = content.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
    return "it is compressed: unpack it" if packed else "save it as UTF-8"


def lines_of(text: str) -> list[str]:
    """Whole lines of a JSONL text. Not `splitlines`: JSON may hold U+2028 and its kin, which that would break at."""
    return text.split("\n")[:-1]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every row of `stream_jsonl`."""
    return list(stream_jsonl(path))


def stream_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of `numbered_jsonl`."""
    return (row for _, row in numbered_jsonl(path))


def numbered_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a JSONL file, as they are asked for; blank lines hold none.

    Raises ValueError that names file, line and the mend.
    """
    first = True
    with path.open("rb") as file:  # bytes break at \n alone, not at the other ends of line that JSON may hold
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            plain = line.removeprefix(b"\xef\xbb\xbf")
            if first and plain.lstrip().startswith(b"["):
                raise ValueError(f"{path}:{number}: this is one JSON array; write its items one a line")
            first = False
            try:
                row = json.loads(plain.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8 text; {saved_as(plain)}") from error
            except (ValueError, RecursionError) as error:  # a nesting without end too
                what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise ValueError(f"{path}:{number}: not JSON ({what}); write one JSON object a line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: a {type(row).__name__} where a JSON object is needed")
            yield number, row


@dataclass(frozen=True)
class Source:
    """A converted source: its samples and where its pictures are."""

    name: str
    role: str  # "warmup", "train" or "evaluate"
    images: Path
    samples: tuple[Sample, ...]

    def picture(self, sample: Sample) -> Path:
        """Path of the sample's first picture. Raises ValueError if it would leave the picture folder."""
        return inside(self.images, sample.images[0])

    def pictures(self, sample: Sample) -> list[Path]:
        """Paths of all the sample's pictures, as `picture` gives the first."""
        return [inside(self.images, name) for name in sample.images]


def load_sources(converted: Path, role: str) -> list[Source]:
    """The sources of one role, in the order of params, as the convert stage left them."""
    folder = converted / role
    if not (folder / "sources.json").is_file():
        raise FileNotFoundError(f"{folder}/sources.json: not there; `dvc repro` makes it")
    index = json.loads((folder / "sources.json").read_text(encoding="utf-8"))
    found = []
    for name, entry in index.items():
        rows = stream_jsonl(folder / f"{name}.jsonl")
        found.append(Source(name, role, Path(entry["images"]), tuple(map(from_json, rows))))
    if not found:
        raise ValueError(f"{folder}/sources.json: no source with role {role}; give one in params.yaml data.sources")
    return found
