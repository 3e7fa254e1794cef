"""Validation: one flat table of all rows, Great Expectations' suite over it, and the rows it refuses.

Nothing expensive starts before this has looked at every annotation and picture.
Left out on purpose: warnings, near-duplicate pictures, class balance.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from vlmr1.boxes import Size
from vlmr1.files import inside
from vlmr1.rows import Row
from vlmr1.settings import Data, Validate

SLACK = 0.5  # pixels by which a box may pass the border: public lists round
INDEX = ["source", "row"]


def flat_table(
    data: Data, rows: Mapping[str, list[Row]], decode: str, progress: Callable[[], None]
) -> list[dict[str, Any]]:
    """One record a row: what was annotated, what the picture really is, and what else shows that picture."""
    pictures: dict[Path, dict[str, Any]] = {}
    table = []
    for name, source in rows.items():
        spec = data.sources[name]
        folder = Path(data.root) / spec.images
        for row in source:
            facts = _picture(folder, row.images[0], decode, pictures)
            declared = not row.sizes or (row.sizes[0] == (facts["width"], facts["height"]))
            x0, y0, x1, y1 = row.boxes[0] if row.boxes else (None, None, None, None)
            record = {"source": name, "role": spec.role, "row": row.row, "image": row.images[0], **facts}
            record |= {"size_as_declared": declared or not facts["opens"], "has_box": bool(row.boxes)}
            finite = all(math.isfinite(v) for box in row.boxes for v in box)
            record["box_finite"] = finite
            record |= {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "expression": row.text.strip()}
            table.append(record)
            progress()
    _mark_repeats(table)
    return table


def _picture(folder: Path, name: str, decode: str, known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """What a picture file is; a fault is a False, never an exception."""
    facts: dict[str, Any] = {
        "path_inside": False,
        "exists": False,
        "opens": False,
        "width": None,
        "height": None,
        "hash": None,
    }
    try:
        path = inside(folder, name)
    except ValueError:
        return facts
    if path not in known:
        facts |= {"path_inside": True, "exists": path.is_file()}
        if facts["exists"]:
            facts["hash"] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            size = _size(path, decode)
            if size is not None:
                facts |= {"opens": True, "width": size[0], "height": size[1]}
        known[path] = facts
    return known[path]


def _size(path: Path, decode: str) -> Size | None:
    """(width, height) of a picture, its pixels read too where `decode` is "full"; None for one that does not open."""
    try:
        with Image.open(path) as picture:
            if decode == "full":
                picture.load()
            return picture.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # whatever is wrong with the file, it is one finding: it does not open


def _mark_repeats(table: list[dict[str, Any]]) -> None:
    """Mark rows that say again what an earlier row of their source said, and training rows on evaluation pictures."""
    evaluated = {record["hash"] for record in table if record["role"] == "evaluate" and record["hash"]}
    seen: set[tuple[str, str, str]] = set()
    for record in table:
        key = (record["source"], record["hash"] or record["image"], record["expression"].lower())
        record["first_of_its_kind"] = key not in seen
        seen.add(key)
        record["not_in_evaluation"] = record["role"] == "evaluate" or record["hash"] not in evaluated


def run_suite(table: list[dict[str, Any]], settings: Validate) -> list[dict[str, Any]]:
    """Run every expectation. Returns one record each: rule, what it wants, rows looked at, rows refused with values."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # Here rather than at the top: it costs 2.5 CPU-seconds that no other user of this module should pay.
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd

    frame = pd.DataFrame(table)
    frame["width_slack"], frame["height_slack"] = frame["width"] + SLACK, frame["height"] + SLACK
    for column in ("x0", "y0", "x1", "y1", "width_slack", "height_slack"):
        frame[column] = pd.to_numeric(frame[column])
    frame["box_width"], frame["box_height"] = frame["x1"] - frame["x0"], frame["y1"] - frame["y0"]

    def true(column: str) -> Any:
        return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[True])

    def pair(a: str, b: str) -> Any:
        return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=a, column_B=b, or_equal=True, ignore_row_if="either_value_is_missing"
        )

    rules: list[tuple[str, str, Any]] = [
        ("path", "the picture's path stays inside its folder", true("path_inside")),
        ("exists", "the picture's file exists", true("exists")),
        ("opens", "the picture opens", true("opens")),
        ("size", "the picture has the size its list declares", true("size_as_declared")),
        ("target", "the expression has a target box", true("has_box")),
        ("finite", "the box is four finite numbers", true("box_finite")),
        (
            "box_left",
            "the box starts inside the picture",
            gxe.ExpectColumnValuesToBeBetween(column="x0", min_value=-SLACK),
        ),
        (
            "box_top",
            "the box starts inside the picture",
            gxe.ExpectColumnValuesToBeBetween(column="y0", min_value=-SLACK),
        ),
        ("box_right", "the box ends inside the picture", pair("width_slack", "x1")),
        ("box_bottom", "the box ends inside the picture", pair("height_slack", "y1")),
        (
            "box_width",
            f"the box is at least {settings.min_side:g} px wide",
            gxe.ExpectColumnValuesToBeBetween(column="box_width", min_value=settings.min_side),
        ),
        (
            "box_height",
            f"the box is at least {settings.min_side:g} px high",
            gxe.ExpectColumnValuesToBeBetween(column="box_height", min_value=settings.min_side),
        ),
        (
            "text",
            "the expression is not empty",
            gxe.ExpectColumnValueLengthsToBeBetween(column="expression", min_value=1),
        ),
        ("duplicate", "no earlier row of the source has the same picture and expression", true("first_of_its_kind")),
        ("leak", "no evaluation source has the same picture", true("not_in_evaluation")),
    ]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = source.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    suite = context.suites.add(gx.ExpectationSuite(name="annotations", expectations=[rule for _, _, rule in rules]))
    shape = {"result_format": "COMPLETE", "unexpected_index_column_names": INDEX}
    outcome = batch.validate(suite, result_format=shape)
    by_id = {result.expectation_config.id: result for result in outcome.results}
    return [_finding(name, meaning, by_id[rule.id], len(frame)) for name, meaning, rule in rules]


def _finding(name: str, meaning: str, result: Any, rows: int) -> dict[str, Any]:
    """An expectation's outcome in plain types."""
    refused = []
    for entry in result.result.get("unexpected_index_list") or []:
        # The marks made above are plain false; what was measured is worth showing.
        value = {key: v for key, v in entry.items() if key not in INDEX and str(v) != "False"}
        refused.append(
            {"source": str(entry["source"]), "row": int(entry["row"]), "value": ", ".join(map(str, value.values()))}
        )
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(
            f"expectation {name} could not be evaluated: {result.exception_info.get('exception_message')}"
        )
    if not result.success and not refused:
        raise RuntimeError(f"expectation {name} failed without naming a row")
    return {"rule": name, "wants": meaning, "rows": rows, "refused": refused}
