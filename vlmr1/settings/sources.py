"""Sources in params.yaml: one block a list of annotations, told apart by `format`, each with its format's own keys."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vlmr1.settings.base import Block, Pair

AUTO = "auto"  # a reward by the kind of answer: mcq for the letter of a choice, numeric for a number, math for the rest


def _named(reward: str) -> str:
    if reward == AUTO:
        raise ValueError("auto is for answers of task math alone; name one of the task's rewards")
    return reward


def _below(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("it leaves data.root; give a path below that, which is all that the pipeline watches")
    return path


AnyReward = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # one of the task's METHODS, or auto
Reward = Annotated[AnyReward, AfterValidator(_named)]
Below = Annotated[str, AfterValidator(_below)]
TaskName = Literal["rec", "ovd", "math", "gui"]
Role = Literal["warmup", "train", "evaluate"]
Frame = Literal["pixels", "thousandths"]  # of a list's boxes: of the stored picture, or 0 to 1000 on both axes

Negatives = Annotated[int, Field(ge=0)] | Literal["all"]  # absent names asked for beside the present ones


class Source(Block):
    """What every list says. Paths are relative to data.root."""

    role: Role
    annotations: Below
    images: Below


class RefCoco(Source):
    """RefCOCO, RefCOCO+, RefCOCOg: the list of refs (.p or .json), COCO's instances.json beside it."""

    format: Literal["refcoco"]
    split: str  # train, val, testA, …


class RecJsonl(Source):
    """One expression a line: img_path, expression, bbox (corners), width, height."""

    format: Literal["rec_jsonl"]


class RecJson(Source):
    """The original project's REC evaluation JSON."""

    format: Literal["rec_json"]
    frame: Frame


class Lisa(Source):
    """LISA's ReasonSeg: a folder of label files, masks made boxes."""

    format: Literal["lisa"]
    polygons: Literal["all", "first"]  # of a mask: all, or as published recipes do, the first


class Jsonl(Source):
    """The original project's training JSONL, which is also what conversion writes."""

    format: Literal["jsonl"]
    frame: Frame
    task: TaskName | None  # of rows that name none
    reward: Reward | None  # accuracy reward of rows that name none


class Coco(Source):
    """COCO instances, and ODinW's sets in that form. One row a picture."""

    format: Literal["coco"]
    keep: Literal["all", "filtered", "pos_2", "pos_3"]
    negatives: Negatives
    crowd: Literal["drop", "keep"]  # crowd regions as boxes of their category, or not at all
    reward: Reward
    seed: int


class Lvis(Source):
    """LVIS. Negatives come from the names known to be absent; names not exhaustively marked are not asked for."""

    format: Literal["lvis"]
    negatives: Negatives
    reward: Reward
    seed: int


class OvdEval(Source):
    """OVDEval: COCO with `text` and `neg_text` on each picture."""

    format: Literal["ovdeval"]
    asked: Literal["listed", "all"]  # a picture's own names, or every category of the set
    reward: Reward
    seed: int


class D3(Source):
    """D³: a folder of pickles, or COCO JSON by sentences."""

    format: Literal["d3"]
    sentences: Literal["full", "pres", "abs"]
    asked: Literal["intra", "inter", "train"]  # the group's sentences, all, or the present ones and drawn negatives
    negatives: Pair | None  # with asked: train only; fewest and most of them a picture
    reward: Reward
    seed: int

    @model_validator(mode="after")
    def _negatives_of_training(self) -> D3:
        if (self.asked == "train") != (self.negatives is not None):
            raise ValueError("negatives: belongs to asked: train, and only to it (else null)")
        if self.negatives is not None and not 0 <= self.negatives[0] <= self.negatives[1]:
            raise ValueError("negatives: fewest and most, at least 0 and in this order")
        return self


class Voc(Source):
    """Pascal VOC: a folder of XML files, as some ODinW sets have."""

    format: Literal["voc"]
    corners: Literal["pascal", "plain"]  # pixels counted from 1, the last included; or coordinates as they stand
    negatives: Negatives
    reward: Reward
    seed: int


class Questions(Source):
    """Benchmarks of questions with checkable answers, each in its own published form."""

    format: Literal["mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista"]
    reward: AnyReward  # of every row
    only: str | None  # rows of this kind alone, e.g. MathVerse's Vision Only, or a subject or a level of DynaMath's


class Gui(Source):
    """Two screenshots and an action between them, in the original project's multi-image JSONL."""

    format: Literal["gui"]


Column = Literal["image", "text", "answer", "box", "label", "group", "kind"]
COLUMNS: dict[TaskName, tuple[set[Column], set[Column]]] = {  # of a task: those it needs, and those it can do without
    "rec": ({"image", "text", "box"}, {"group", "kind"}),
    "ovd": ({"image", "text", "box", "label"}, {"group", "kind"}),
    "math": ({"text", "answer"}, {"image", "group", "kind"}),
    "gui": ({"image", "text", "answer"}, {"group", "kind"}),
}


class Table(Source):
    """A table of one's own: .jsonl, .json, .csv or .parquet, with the names of its columns."""

    format: Literal["table"]
    task: TaskName
    reward: AnyReward
    frame: Frame | None  # of boxes; null without any
    columns: dict[Column, str]  # box may name four, as "x0,y0,x1,y1"

    @model_validator(mode="after")
    def _columns_of_the_task(self) -> Table:
        if self.reward == AUTO and self.task != "math":
            raise ValueError("reward: auto is for task math alone; name one of the task's rewards")
        needed, free = COLUMNS[self.task]
        if missing := sorted(needed - set(self.columns)):
            raise ValueError(f"columns: task {self.task} needs {', '.join(missing)}")
        if idle := sorted(set(self.columns) - needed - free):
            raise ValueError(f"columns: task {self.task} has no use for {', '.join(idle)}")
        if (self.frame is None) != ("box" not in self.columns):
            raise ValueError("frame: belongs to a column of boxes, and only to one (else null)")
        several = sorted(key for key, name in self.columns.items() if "," in name)
        if several and (several != ["box"] or self.task != "rec" or self.columns["box"].count(",") != 3):
            raise ValueError(f"columns: {several[0]}: one column, or, for the box of task rec, four")
        return self


SourceSpec = Annotated[
    RefCoco | RecJsonl | RecJson | Lisa | Jsonl | Coco | Lvis | OvdEval | D3 | Voc | Questions | Gui | Table,
    Field(discriminator="format"),
]
