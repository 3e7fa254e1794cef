"""ODinW: COCO's AP of each of its sets (13 or 35 of them), and their unweighted mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmr1.evaluation.average_precision import mean
from vlmr1.evaluation.coco import bounds
from vlmr1.evaluation.compare import Result, joined


def odinw(parts: Mapping[str, Result]) -> Result:
    """The mean of the sets' results, by their names. A set in which nothing is to be found has no part in it."""
    scored = {name: part for name, part in parts.items() if any(row["boxes"] for row in _rows(part))}
    draws = joined(list(scored.values())) if scored else None
    figures: dict[str, Any] = {"mean_AP": mean(part.value for part in scored.values()), "sets": len(scored)}
    figures |= bounds("mean_AP", draws)
    figures |= {key: sum(part.figures[key] for part in parts.values()) for key in ("n", "boxes", "missing")}
    figures["parts"] = {name: part.figures for name, part in parts.items()}
    return Result(figures, "mean_AP", draws=draws)


def _rows(part: Result) -> list[dict[str, Any]]:
    return list(part.figures["per_category"].values())
