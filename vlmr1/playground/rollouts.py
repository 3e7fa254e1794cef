"""A training's rollouts as the page shows them: groups in the order of training, each read from the log when wanted.

Of a group only a few figures are held, so that a long run fits; a run that goes on is read on. Pictures are opened
below the folder that the user gives, or below those that the run's own questions name, where these lie in the run: a
run of somebody else's may name any. A run in the current folder may name what lies there too, as the pipeline's does.
Left out on purpose: completions of an evaluation, which the report shows.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmr1.boxes import Size
from vlmr1.files import inside
from vlmr1.pictures import open_picture
from vlmr1.playground.lines import ALARMS, QUESTIONS, ROLLOUTS, Line, lines
from vlmr1.playground.questions import text_of, truth_boxes
from vlmr1.sample import Sample, from_json

PLACES = (".", "work", "logs", "work/grpo", "logs/grpo")  # below what is named, where a run keeps them


@dataclass(frozen=True)
class Group:
    """The completions of one question in one step."""

    number: int  # in the run, from 1
    step: int
    item: int  # the question's place in the data
    source: str
    start: int  # bytes of the log
    end: int
    rewards: tuple[float, ...]
    judged: tuple[float, ...]
    unread: int  # completions of which a reward could read no answer
    truncated: int

    @property
    def mean(self) -> float:
        return sum(self.rewards) / len(self.rewards)

    @property
    def zero_variance(self) -> bool:
        """Whether all rewards are equal, so that it taught nothing."""
        return len(set(self.rewards)) == 1


class Run:
    """The rollouts of one training, finished or going on."""

    def __init__(self, run: Path, images: Path | None = None) -> None:
        """Raises FileNotFoundError where no rollouts are, ValueError for a log of another form."""
        run = run.parent if run.name == ROLLOUTS else run
        self.folder = _folder(run)
        if images is not None and not images.is_dir():
            raise ValueError(f"--images {images}: no such folder")
        self.name, self.images = str(run), images
        ours, here = run.resolve(), Path.cwd()
        self.root = here if ours.is_relative_to(here) else ours  # in which pictures are read that nobody named
        self.reading = threading.RLock()  # held by whoever reads, for reading on changes the groups
        self._begin()
        self.refresh()
        if not self.groups:
            raise ValueError(f"{self.folder / ROLLOUTS}: no rollouts in it yet; wait for the first step")

    def _begin(self) -> None:
        self.groups: list[Group] = []
        self.parts: list[str] = []  # names of rewards
        self.questions: dict[int, bytes] = {}
        self.alarms: dict[int, list[dict[str, Any]]] = {}  # by step
        self.read = {ROLLOUTS: 0, QUESTIONS: 0, ALARMS: 0}  # bytes
        self.inodes: dict[str, int] = {}

    def refresh(self) -> None:
        """Read what was written since. A log that was taken back to an earlier step is read anew.

        Training writes a step's questions before its rollouts, so those are read after these: each has its question.
        """
        with self.reading:
            while self._taken_back():
                self._begin()
            # The last group may have been half written.
            self.read[ROLLOUTS] = self.groups.pop().start if self.groups else 0
            group: list[Line] = []
            for line in self._new(ROLLOUTS):
                self.parts += [name for name in line.row["rewards"] if name not in self.parts]
                if line.row["number"] == 0 and group:
                    self._add(group)
                    group = []
                group.append(line)
            if group:
                self._add(group)
            for line in self._new(QUESTIONS):
                self.questions[line.row["item"]] = line.content
            for line in self._new(ALARMS):
                self.alarms.setdefault(line.row["step"], []).append(line.row)

    def _taken_back(self) -> bool:
        """Whether one of the files is another than the one that was read, or shorter."""
        found = {name: self.folder / name for name in self.read}
        states = {name: path.stat() for name, path in found.items() if path.is_file()}
        return any(
            at.st_ino != self.inodes.setdefault(name, at.st_ino) or at.st_size < self.read[name]
            for name, at in states.items()
        )

    def _new(self, name: str) -> Iterator[Line]:
        """Whole lines that were not read before."""
        for line in lines(self.folder / name, self.read[name]):
            yield line
            self.read[name] = line.end

    def as_it_stands(self) -> Run:
        """The run as it was read up to now, which reading on does not change. For who takes long over it."""
        kept = copy.copy(self)
        kept.groups, kept.parts = self.groups.copy(), self.parts.copy()
        kept.questions, kept.alarms = self.questions.copy(), self.alarms.copy()
        return kept

    def _add(self, said: Sequence[Line]) -> None:
        rows = [line.row for line in said]
        unread = sum(any(not part["parsed"] for part in row["rewards"].values()) for row in rows)
        first = rows[0]
        self.groups.append(
            Group(
                len(self.groups) + 1,
                first["step"],
                first["item"],
                first["source"],
                said[0].start,
                said[-1].end,
                tuple(row["reward"] for row in rows),
                tuple(row["judged"] for row in rows),
                unread,
                sum(row["truncated"] for row in rows),
            )
        )

    def rows(self, group: Group) -> list[dict[str, Any]]:
        """The group's lines of the log, the completions numbered from 1 as the page says them; the log has 0."""
        with (self.folder / ROLLOUTS).open("rb") as file:
            file.seek(group.start)
            rows = [json.loads(line) for line in file.read(group.end - group.start).splitlines()]
        return [row | {"number": row["number"] + 1} for row in rows]

    def question(self, group: Group) -> tuple[Sample, Path]:
        """What was asked, and the folder of its pictures. Raises ValueError where the run did not keep it."""
        line = self.questions.get(group.item)
        if line is None:
            raise ValueError(f"{self.folder / QUESTIONS}: no item {group.item}; the file is not this run's")
        kept = json.loads(line)
        return from_json(kept), self.images or Path(kept["images"])

    def picture(self, group: Group, place: int) -> tuple[bytes, str]:
        """One of the question's pictures: its file's bytes and its format. Raises ValueError where there is none."""
        sample, folder = self.question(group)
        if not 0 <= place < len(sample.images):
            raise ValueError(f"group {group.number} has {len(sample.images)} pictures")
        if self.images is None and not self._near(folder):
            raise ValueError(f"the pictures lie in {folder}, outside {self.root}; --images names it")
        path = inside(folder, sample.images[place])
        with open_picture(path) as picture:
            return path.read_bytes(), f"image/{(picture.format or '').lower()}"

    def _sizes(self, sample: Sample, folder: Path) -> list[Size | None]:
        """Of every picture; of tasks without boxes the data does not say them."""
        if sample.sizes or (self.images is None and not self._near(folder)):
            return list(sample.sizes) or [None] * len(sample.images)
        return [_size(folder, name) for name in sample.images]

    def _near(self, folder: Path) -> bool:
        return folder.resolve().is_relative_to(self.root)

    def elsewhere(self) -> list[str]:
        """Folders of pictures that the run names and nobody gave, outside the run's own root."""
        if self.images is not None:
            return []
        named = {json.loads(line)["images"] for line in self.questions.values()}
        return sorted(folder for folder in named if not self._near(Path(folder)))

    def steps(self) -> list[dict[str, Any]]:
        """Every step's figures over its groups, for the curve."""
        found: dict[int, list[Group]] = {}
        for group in self.groups:
            found.setdefault(group.step, []).append(group)
        return [
            {
                "step": step,
                "reward": sum(group.mean for group in groups) / len(groups),
                "zero_variance": sum(group.zero_variance for group in groups) / len(groups),
                "alarms": [alarm["message"] for alarm in self.alarms.get(step, [])],
            }
            for step, groups in sorted(found.items())
        ]

    def brief(self, group: Group) -> dict[str, Any]:
        """A group as a line of a list."""
        sample, _ = self.question(group)
        return {
            "number": group.number,
            "step": group.step,
            "source": group.source,
            "id": sample.id,
            "question": text_of(sample),
            "mean": group.mean,
            "rewards": group.rewards,
            "unread": group.unread,
            "truncated": group.truncated,
            "wrong": not any(group.judged),
            "zero_variance": group.zero_variance,
            "alarm": group.step in self.alarms,
        }

    def whole(self, group: Group) -> dict[str, Any]:
        """A group with its question, its truth and every completion."""
        sample, folder = self.question(group)
        return self.brief(group) | {
            "task": sample.task,
            "problem": sample.problem,
            "method": sample.reward,
            "truth": sample.solution,
            "true_boxes": truth_boxes(sample),
            "sizes": self._sizes(sample, folder),
            "alarms": [alarm["message"] for alarm in self.alarms.get(group.step, [])],
            "completions": self.rows(group),
        }


def _size(folder: Path, name: str) -> Size | None:
    """(width, height) of a picture's stored pixels; None where it is not there or none, which the page then says."""
    try:
        with open_picture(inside(folder, name)) as picture:
            return picture.size
    except ValueError:
        return None


def _folder(run: Path) -> Path:
    for place in PLACES:
        if (run / place / ROLLOUTS).is_file():
            return run / place
    raise FileNotFoundError(
        f"{run}: no {ROLLOUTS} in it; name a training's folder (work/grpo, logs/grpo or --output), and train with"
        " log_rollouts: true"
    )
