"""REC figures of whole files: Acc@0.5 (IoU strictly above 0.5), mean IoU, parse failures, no-target expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmr1.boxes import Box, iou
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.intervals import bootstrap_mean, wilson
from vlmr1.tasks.rec import HIT_IOU


def rec(truths: Sequence[Box | None], boxes: Sequence[Box | None], read: Sequence[bool | None]) -> Result:
    """Figures of whole files. By item: the true box, None where nothing fits the expression; the box said; and whether
    an answer could be read, None where there is no prediction.

    Where nothing fits, an answer that could be read and holds no box is a hit of IoU 1, as `vlmr1.tasks.rec` has it.
    `parse_failures` are answers that could not be read; a missing one is wrong too, and counted in `missing`.
    """
    ious = [
        float(bool(parsed) and box is None) if true is None else iou(box, true) if box is not None else 0.0
        for true, box, parsed in zip(truths, boxes, read, strict=True)
    ]
    n, hits = len(ious), [value > HIT_IOU for value in ious]
    none = [hit for hit, true in zip(hits, truths, strict=True) if true is None]
    low, high = wilson(sum(hits), n)
    figures: dict[str, Any] = {"acc_0.5": sum(hits) / n, "acc_0.5_low": low, "acc_0.5_high": high}
    low, high = bootstrap_mean(ious)
    figures |= {"mean_iou": sum(ious) / n, "mean_iou_low": low, "mean_iou_high": high, "n": n}
    figures |= {"parse_failures": sum(one is False for one in read), "missing": sum(one is None for one in read)}
    if none:
        low, high = wilson(sum(none), len(none))
        figures |= {"no_target_acc": sum(none) / len(none), "no_target_acc_low": low, "no_target_acc_high": high}
        figures["no_target_n"] = len(none)
    return Result(figures, "acc_0.5", items=np.array(hits, dtype=np.float64))
