"""OpenCompass' multi-modal reasoning: the main numbers of six benchmarks and their unweighted mean.

MathVista's, MathVision's and LogicVista's accuracy, MathVerse's over Vision Only, DynaMath's worst case, We-Math's
strict score. Where a MathVerse list has no Vision Only, its accuracy stands in, and `taken` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmr1.evaluation.coco import bounds
from vlmr1.evaluation.compare import Result, draws_of

SIX = ("mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista")


def opencompass_math(parts: Mapping[str, Result]) -> Result:
    """The mean, from the results of the six by name."""
    taken = {name: parts[name].main for name in SIX}
    six = {name: parts[name].value for name in SIX}
    figures: dict[str, Any] = {"mean": float(np.mean(list(six.values())))}
    draws = np.mean([draws_of(parts[name], seed) for seed, name in enumerate(SIX)], axis=0)
    figures |= bounds("mean", draws)
    figures |= {"six": six, "taken": taken}
    counted = ("n", "missing", "needed_judge_n", "judge_unreadable_n")
    figures |= {key: sum(part.figures[key] for part in parts.values()) for key in counted}
    figures["judge"] = parts[SIX[0]].figures["judge"]
    figures["parts"] = {name: parts[name].figures for name in SIX}
    return Result(figures, "mean", draws=draws)
