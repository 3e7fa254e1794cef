"""What answers are measured by: the scores that tasks give (`score`), and the figures that these become."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A score of one answer, and the figure of many."""

    figure: str  # the figure's key
    title: str  # as tables and sentences call it
    proportion: bool  # of answers that are right; else a mean in [0, 1]


# By the key of the score. Of those a task gives, the first is the one it is judged by.
MEASURES = {
    "hit": Measure("acc_0.5", "Acc@0.5", True),
    "iou": Measure("mean_iou", "mean IoU", False),
    "ap": Measure("mean_ap", "mean AP", False),
    "ap50": Measure("mean_ap50", "mean AP50", False),
    "correct": Measure("accuracy", "accuracy", True),
}
TITLES = {measure.figure: measure.title for measure in MEASURES.values()}
EXPLAINED = {
    "acc_0.5": "Acc@0.5: share of boxes whose IoU with the true one is strictly above 0.5, or of `None` rightly said",
    "mean_ap": "mean AP: COCO's AP@[.50:.95] of each picture by itself, averaged over pictures",
    "accuracy": "accuracy: share of answers that the row's own reward finds right",
}
EXTRAS = {
    "acc_0.5": {"mean_iou": "IoU"},
    "mean_ap": {"AP": "set AP", "precision": "P", "recall": "R", "boxes": "boxes"},
    "accuracy": {},
}  # told beside it


def right(measure: str, value: float) -> bool:
    """Whether an answer of that score is shown as a good one: true, or at least half of what can be had."""
    return bool(value) if MEASURES[measure].proportion else value >= 0.5
