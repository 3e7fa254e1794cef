"""What every column of the flat table must be, as Great Expectations' expectations, and the suite that looks.

Left out on purpose: expectations over whole columns (means, distributions), which no row can be blamed for; those are
facts, in `baselines`.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

from vlmr1.pictures import FORMATS
from vlmr1.settings import Validate
from vlmr1.validation.pictures import MODES

SLACK = 0.5  # pixels by which a box may pass the border: public lists round
BOXES = "boxes"  # the column that shows what the box rules measured
INDEX = ["source", "row", BOXES]


@dataclass(frozen=True)
class Wanted:
    """One rule: what is wanted of which field of a row.

    A column holds what is wrong in words ("nothing"), or a figure that is to lie between `low` and `high`.
    """

    field: str
    says: str
    kind: Literal["nothing", "between"] = "nothing"
    low: float | None = None
    high: float | None = None


def rules(settings: Validate) -> dict[str, Wanted]:
    """Every rule by its name, which is its column's too."""
    most, side, share = settings.max_text, settings.min_side, settings.max_share
    return {
        "reads": Wanted("row", "the row can be read"),
        "path": Wanted("image", "the picture's path stays inside its folder"),
        "exists": Wanted("image", "the picture's file exists; a box has a picture"),
        "opens": Wanted("image", "the picture opens"),
        "pixels": Wanted("image", f"the picture has at most {settings.max_picture_pixels:,} pixels"),
        "format": Wanted("image", f"the picture is {', '.join(FORMATS)}"),
        "mode": Wanted("image", f"the picture's mode is {' or '.join(MODES)}; others are changed to RGB"),
        "upright": Wanted("image", "no EXIF tag turns the picture; training does not turn it"),
        "size": Wanted("size", "the picture has the size its list declares"),
        "text": Wanted("text", "the expression or question is not empty"),
        "text_length": Wanted("text", f"the text has at most {most:,} characters", "between", high=most),
        "places": Wanted("text", "as many <image> places as pictures, or none"),
        "box_finite": Wanted("box", "the box is four finite numbers"),
        "box_left": Wanted("box", "the box starts inside the picture", "between", low=-SLACK),
        "box_top": Wanted("box", "the box starts inside the picture", "between", low=-SLACK),
        "box_right": Wanted("box", "the box ends inside the picture", "between", high=SLACK),
        "box_bottom": Wanted("box", "the box ends inside the picture", "between", high=SLACK),
        "box_width": Wanted("box", f"the box is at least {side:g} px wide", "between", low=side),
        "box_height": Wanted("box", f"the box is at least {side:g} px high", "between", low=side),
        "box_share": Wanted("box", f"the box covers at most {share:.0%} of the picture", "between", high=share),
        "labels": Wanted("label", "every box has a label that is asked for, every defect is a known one"),
        "answer": Wanted("answer", "the answer can be read by the task, and the row's reward is one of the task's"),
        "itself": Wanted("answer", "the truth, given as an answer, earns the row's reward in full"),
        "duplicate": Wanted("row", "no earlier row of the source is the same"),
        "contradiction": Wanted("answer", "no earlier row of the source gives another answer to the same question"),
        "leak": Wanted("image", "no evaluation source has the same picture"),
        "near_leak": Wanted("image", "no evaluation source has a picture that looks the same"),
    }  # fmt: skip


@dataclass(frozen=True)
class Offence:
    """A row that a rule does not pass."""

    rule: str
    row: int
    value: str  # what was there


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
        frame = pd.DataFrame(table)
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
        shape: dict[str, Any] = {"result_format": "COMPLETE", "unexpected_index_column_names": INDEX}
        shape["return_unexpected_index_query"] = False  # a text of all offending rows, which nobody reads
        results = {one.expectation_config.id: one for one in batch.validate(suite, result_format=shape).results}
        return [offence for name in wanted for offence in _offences(name, results[expectations[name].id])]


class Desk:
    """A suite at work: here, or in a process of its own, which starts while the first rows are still being read."""

    def __init__(self, settings: Validate) -> None:
        self.rules = rules(settings)
        self.here = Suite(settings) if settings.workers == 1 else None
        self.pool = None
        if self.here is None:
            # A fork starts at once; where there are other threads, it would copy their locks.
            how = "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"
            self.pool = ProcessPoolExecutor(1, get_context(how), initializer=_begin, initargs=(settings,))
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


_suite: Suite  # of a process that a Desk started


def _expectation(name: str, wanted: Wanted) -> Any:
    import great_expectations.expectations as gxe

    if wanted.kind == "nothing":
        return gxe.ExpectColumnValueLengthsToBeBetween(column=name, max_value=0)
    return gxe.ExpectColumnValuesToBeBetween(column=name, min_value=wanted.low, max_value=wanted.high)


def _offences(name: str, result: Any) -> list[Offence]:
    """An expectation's outcome in plain types."""
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(
            f"expectation {name} could not be evaluated: {result.exception_info.get('exception_message')}"
        )
    found = []
    for entry in result.result.get("unexpected_index_list") or []:
        value = str(entry[BOXES]) if name.startswith("box_") else str(entry[name])
        found.append(Offence(name, int(entry["row"]), value[:200]))
    if not result.success and not found:
        raise RuntimeError(f"expectation {name} failed without naming a row")
    return found
