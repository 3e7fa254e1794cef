"""D³ (d-cube): COCO's AP over 422 descriptions (FULL), those of presence (PRES) and those of absence (ABS).

Intra-scenario: a picture is asked for the descriptions of its own group, so a prediction for any other is left out and
counted in `left_out`. Inter-scenario: for all of them. The truths are the same in both, as in the official code: the
published COCO JSON of all descriptions; `boxes_of_other_groups` are those that no answer of the intra-scenario finds.
PRES and ABS are means over their descriptions, which is what COCOeval makes of the two smaller JSON files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmr1.evaluation.annotations import Id, Truths
from vlmr1.evaluation.average_precision import match_set, mean, precisions
from vlmr1.evaluation.coco import average, bounds, counts
from vlmr1.evaluation.compare import Result
from vlmr1.evaluation.predictions import By, Detection, by_pair
from vlmr1.evaluation.resampling import AFFORDABLE, centred, drawn_mean, drawn_precisions
from vlmr1.sources.pickles import load_pickle
from vlmr1.sources.reading import At, shown, take, take_id, take_ids

SCENARIOS = ("intra", "inter")


def d3(
    truths: Truths, detections: Sequence[Detection], absence: Mapping[Id, bool], inner: set[By], scenario: str
) -> Result:
    """FULL, PRES and ABS. `absence` says of each description whether it is one; `inner` are the pairs of a picture and
    a description of its group, as `groups_of` reads both."""
    asked = [one for one in detections if scenario == "inter" or (one.image, one.category) in inner]
    matched = {id_: one for id_, one in match_set(truths, by_pair(asked)).items() if one.positives}
    figures: dict[str, Any] = counts(truths, detections) | {
        "scenario": scenario,
        "left_out": len(detections) - len(asked),
        "boxes_of_other_groups": sum(len(true) for pair, true in truths.boxes.items() if pair not in inner),
    }
    drawn = drawn_precisions(matched, len(truths.images)) if matched and len(asked) <= AFFORDABLE else None
    full = None
    for name, wanted in (("FULL", None), ("PRES", False), ("ABS", True)):
        mine = {id_: one for id_, one in matched.items() if wanted is None or absence[id_] == wanted}
        figures[name] = mean(precisions(one).mean() for one in mine.values())
        draws = None
        if drawn is not None and mine:
            draws = centred(drawn_mean({id_: drawn[id_] for id_ in mine}), figures[name])
        full = draws if wanted is None else full
        figures |= bounds(name, draws) | {f"{name}_descriptions": len(mine)}
    figures |= {"FULL_AP50": average(matched)["AP50"], "FULL_AP75": average(matched)["AP75"]}
    if truths.starts_at_0:
        mended = match_set(truths, by_pair(asked), zero_is_a_match=True)
        figures["FULL_id_0_mended"] = average(mended)["AP"]
    return Result(figures, "FULL", draws=full)


def files_of(folder: Path) -> tuple[Path, Path]:
    """(the COCO JSON of all descriptions, the folder of the pickles) anywhere below a folder.

    Raises FileNotFoundError or ValueError where either is missing or there are several.
    """
    jsons = sorted(folder.rglob("*.json"))
    full = [path for path in jsons if "full" in path.stem.lower()] or jsons
    pickles = sorted(folder.rglob("sentences.pkl"))
    for found, what in ((full, "d3_full_annotations.json"), (pickles, "sentences.pkl")):
        if not found:
            raise FileNotFoundError(f"{folder}: no {what} below it; name the folder of D³'s annotations")
        if len(found) > 1:
            raise ValueError(f"{folder}: {len(found)} files that may be {what} below it; leave one")
    return full[0], pickles[0].parent


def groups_of(folder: Path, truths: Truths) -> tuple[dict[Id, bool], set[By]]:
    """(whether each description is one of absence, the pairs of a picture and a description of its group)."""
    sentences, images, groups = (_table(folder / f"{name}.pkl") for name in ("sentences", "images", "groups"))
    absence: dict[Id, bool] = {}
    for id_ in truths.names:
        with At(folder / "sentences.pkl", "sentence", id_):
            if id_ not in sentences:
                raise ValueError(f"it is not there, but a category of {truths.path}")
            absence[id_] = take(sentences[id_], "is_negative", bool)
    inner: set[By] = set()
    for id_ in truths.images:
        with At(folder / "images.pkl", "image", id_):
            if id_ not in images:
                raise ValueError(f"it is not there, but an image of {truths.path}")
            group = groups.get(take_id(images[id_], "group_id"))
            if group is None:
                raise ValueError(f"group_id {shown(images[id_]['group_id'])} is none of groups.pkl")
            inner |= {(id_, sentence) for sentence in take_ids(group, "inner_sent_id")}
    return absence, inner


def _table(path: Path) -> dict[Id, Any]:
    table = load_pickle(path, arrays=True)
    if not isinstance(table, dict) or not table:
        raise ValueError(f"{path}: records by id are needed, not {shown(table)}")
    return table
