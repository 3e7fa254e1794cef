"""What every column of the flat table must be, as Great Expectations' expectations, and the suite that looks.

Left out on purpose: expectations over whole columns (means, distributions), which no row can be blamed for; those are
facts, in `baselines`.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from vlmr1.settings import Validate
from vlmr1.validation.pictures import FORMATS, MODES

SLACK = 0.5  # pixels by which a box may pass the border: public lists round
INDEX = ["source", "row"]


@dataclass(frozen=True)
class Wanted:
    """One rule: what is wanted of a column."""

    says: str
    kind: str  # the expectation: "true", "set", "between" or "length"
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()


def rules(settings: Validate) -> dict[str, Wanted]:
    """Every rule by its name, which is its column's too."""
    most, side, share = settings.max_text, settings.min_side, settings.max_share
    return {
        "path": Wanted("the picture's path stays inside its folder", "true"),
        "exists": Wanted("the picture's file exists", "true"),
        "opens": Wanted("the picture opens", "true"),
        "pixels": Wanted(f"the picture has at most {settings.max_picture_pixels:,} pixels", "true"),
        "format": Wanted(f"the picture is {', '.join(FORMATS)}", "set", values=FORMATS),
        "mode": Wanted(f"the picture's mode is {' or '.join(MODES)}; others are changed to RGB", "set", values=MODES),
        "upright": Wanted("no EXIF tag turns the picture; training does not turn it", "true"),
        "size": Wanted("the picture has the size its list declares", "true"),
        "text": Wanted("the expression or question is not empty", "length", low=1),
        "text_length": Wanted(f"the text has at most {most:,} characters", "length", high=most),
        "places": Wanted("as many <image> places as pictures, or none", "true"),
        "box_finite": Wanted("the box is four finite numbers", "true"),
        "box_left": Wanted("the box starts inside the picture", "between", low=-SLACK),
        "box_top": Wanted("the box starts inside the picture", "between", low=-SLACK),
        "box_right": Wanted("the box ends inside the picture", "between", high=SLACK),
        "box_bottom": Wanted("the box ends inside the picture", "between", high=SLACK),
        "box_width": Wanted(f"the box is at least {side:g} px wide", "between", low=side),
        "box_height": Wanted(f"the box is at least {side:g} px high", "between", low=side),
        "box_share": Wanted(f"the box covers at most {share:.0%} of the picture", "between", high=share),
        "labels": Wanted("every box has a label that is asked for, every defect is a known one", "true"),
        "answer": Wanted("the answer can be read by the task, and the row's reward is one of the task's", "true"),
        "itself": Wanted("the truth, given as an answer, earns the row's reward in full", "true"),
        "duplicate": Wanted("no earlier row of the source is the same", "true"),
        "contradiction": Wanted("no earlier row of the source gives another answer to the same question", "true"),
        "leak": Wanted("no evaluation source has the same picture", "true"),
        "near_leak": Wanted("no evaluation source has a picture that looks the same", "true"),
    }  # fmt: skip


@dataclass(frozen=True)
class Offence:
    """A row that a rule does not pass."""

    rule: str
    row: int
    value: str  # what was there, where that is worth showing


class Suite:
    """Great Expectations over chunks of the flat table."""

    def __init__(self, settings: Validate) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        # Here rather than at the top: it costs 2.5 CPU-seconds that no other user of this module should pay.
        import great_expectations as gx

        self.rules = rules(settings)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        self.frames = (
            context.data_sources.add_pandas("rows")
            .add_dataframe_asset("rows")
            .add_batch_definition_whole_dataframe("all")
        )
        self.context = context
        self.suites: dict[str, tuple[Any, dict[str, Any]]] = {}  # by the rules that a table has columns for

    def run(self, table: dict[str, list[Any]]) -> list[Offence]:
        """Every offence of a chunk; rules whose column the table lacks are not looked at."""
        import great_expectations as gx
        import pandas as pd

        if not table:
            return []
        frame = pd.DataFrame({"text_length": table["text"], **table})
        wanted = [name for name in self.rules if name in frame]
        for name in wanted:
            if self.rules[name].kind == "between":
                frame[name] = pd.to_numeric(frame[name])
        key = " ".join(wanted)
        if key not in self.suites:
            expectations = {name: _expectation(name, self.rules[name]) for name in wanted}
            suite = gx.ExpectationSuite(
                name=f"annotations {len(self.suites)}", expectations=list(expectations.values())
            )
            self.suites[key] = (self.context.suites.add(suite), expectations)
        suite, expectations = self.suites[key]
        batch = self.frames.get_batch(batch_parameters={"dataframe": frame})
        shape = {"result_format": "COMPLETE", "unexpected_index_column_names": INDEX}
        results = {one.expectation_config.id: one for one in batch.validate(suite, result_format=shape).results}
        return [offence for name in wanted for offence in _offences(name, results[expectations[name].id])]


class Judge:
    """A suite at work: here, or in a process of its own, which starts while the first rows are still being read."""

    def __init__(self, settings: Validate) -> None:
        self.rules = rules(settings)
        self.here = Suite(settings) if settings.workers == 1 else None
        self.pool = None
        if self.here is None:
            self.pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(settings,))
            self.pool.submit(os.getpid)  # so that it starts now

    def look(self, table: dict[str, list[Any]]) -> Future[list[Offence]]:
        """The offences of a chunk, in time."""
        if self.pool is not None:
            return self.pool.submit(_look, table)
        assert self.here is not None
        found: Future[list[Offence]] = Future()
        found.set_result(self.here.run(table))
        return found

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def _begin(settings: Validate) -> None:
    """Make this process's suite."""
    global _suite
    _suite = Suite(settings)


def _look(table: dict[str, list[Any]]) -> list[Offence]:
    return _suite.run(table)


_suite: Suite  # of a process that a Judge started


def _expectation(name: str, wanted: Wanted) -> Any:
    import great_expectations.expectations as gxe

    match wanted.kind:
        case "true":
            return gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[True])
        case "set":
            return gxe.ExpectColumnValuesToBeInSet(column=name, value_set=list(wanted.values))
        case "length":
            low, high = (None if v is None else int(v) for v in (wanted.low, wanted.high))
            return gxe.ExpectColumnValueLengthsToBeBetween(column=name, min_value=low, max_value=high)
        case _:
            return gxe.ExpectColumnValuesToBeBetween(column=name, min_value=wanted.low, max_value=wanted.high)


def _offences(name: str, result: Any) -> list[Offence]:
    """An expectation's outcome in plain types."""
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(
            f"expectation {name} could not be evaluated: {result.exception_info.get('exception_message')}"
        )
    found = []
    for entry in result.result.get("unexpected_index_list") or []:
        value = entry.get(name)
        if isinstance(value, float):
            value = f"{value:.6g}"
        # Marks are plain false, which says nothing; what was measured is worth showing.
        found.append(Offence(name, int(entry["row"]), "" if str(value) == "False" else str(value)[:200]))
    if not result.success and not found:
        raise RuntimeError(f"expectation {name} failed without naming a row")
    return found
