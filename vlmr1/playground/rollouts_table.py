"""Rollouts as a Parquet table: a row a completion, with its question, truth and group. Same log, same table.

pyarrow.parquet.read_table("rollouts.parquet", filters=[("zero_variance", "==", True)])
duckdb: select step, avg("rewards/accuracy") from 'rollouts.parquet' group by step
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmr1.playground.rollouts import Group, Run

AT_ONCE = 256  # groups that are held together


def write_parquet(run: Run, path: Path) -> int:
    """Write every rollout, atomically. Returns how many. Raises ValueError where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'vlmr1[playground]'") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    schema, count = _schema(run.parts), 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for start in range(0, len(run.groups), AT_ONCE):
                rows = list(_rows(run, run.groups[start : start + AT_ONCE]))
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                count += len(rows)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def _schema(parts: Sequence[str]) -> Any:
    import pyarrow as pa

    text, number, whole, yes = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    fields = {
        "step": whole,
        "group": whole,  # in the run, from 1 as on the page
        "item": whole,  # the question's place in the data
        "number": whole,  # in its group, from 1 as on the page; rollouts.jsonl has it from 0
        "source": text,
        "id": whole,
        "task": text,
        "problem": text,
        "truth": text,
        "images": pa.list_(text),
        "completion": text,
        "tokens": whole,
        "truncated": yes,
        "boxes": pa.list_(pa.list_(number)),
        "labels": pa.list_(text),
        "problems": pa.list_(text),
        "reward": number,
        "advantage": number,
        "judged": number,
        "zero_variance": yes,  # of its group
        "alarms": pa.list_(text),  # of its step
    }
    for name in parts:
        fields |= {f"rewards/{name}": number, f"rewards/{name}_parsed": yes, f"rewards/{name}_reason": text}
    return pa.schema(list(fields.items()))


def _rows(run: Run, groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    for group in groups:
        sample, folder = run.question(group)
        about = {
            "group": group.number,
            "task": sample.task,
            "problem": sample.problem,
            "truth": sample.solution,
            "images": [(folder / name).as_posix() for name in sample.images],
            "zero_variance": group.zero_variance,
            "alarms": [alarm["message"] for alarm in run.alarms.get(group.step, [])],
        }
        for row in run.rows(group):
            parts: dict[str, Any] = {}
            for name, part in row.pop("rewards").items():
                parts[f"rewards/{name}"] = part["value"]
                parts[f"rewards/{name}_parsed"], parts[f"rewards/{name}_reason"] = part["parsed"], part["reason"]
            yield row | about | parts
