"""REC figures from scored answers: Acc@0.5 (IoU strictly above 0.5), mean IoU, parse failures, answer length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmr1.evaluation.intervals import bootstrap_mean, wilson


def summarise(predictions: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Figures of one source and one way of decoding. Raises ValueError without predictions."""
    n = len(predictions)
    hits = sum(p["hit"] for p in predictions)
    lost = sum(not p["parsed"] for p in predictions)
    ious = [p["iou"] for p in predictions]
    lengths = [p["tokens"] for p in predictions]
    figures: dict[str, float | int] = {"n": n}
    for name, value, interval in (
        ("acc_0.5", hits / n, wilson(hits, n)),
        ("mean_iou", sum(ious) / n, bootstrap_mean(ious)),
        ("parse_failure_rate", lost / n, wilson(lost, n)),
        ("answer_tokens", sum(lengths) / n, bootstrap_mean(lengths)),
    ):
        figures |= {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return figures
