"""validate: look at every raw annotation and picture before anything else does. Run: `python -m vlmr1.stages.validate`.

Writes reports/validation/: validation.json (every rule, every refused row), validation.md (the same for people) and
refused.jsonl (what convert leaves out). With `validate.on_failure: stop` a refused row ends the pipeline here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmr1.files import write_atomically, write_json
from vlmr1.progress import progress
from vlmr1.sample import write_jsonl
from vlmr1.settings import Params
from vlmr1.sources import read_source
from vlmr1.stages import REFUSED, run_stage
from vlmr1.validation import flat_table, run_suite

SHOWN = 50  # refused rows a rule shows in the Markdown


def main(params: Params) -> None:
    data = params.data
    rows = {name: list(read_source(spec, Path(data.root))) for name, spec in data.sources.items()}
    with progress("looking at rows", sum(map(len, rows.values()))) as bar:
        table = flat_table(data, rows, params.validate_.decode, bar.update)
    findings = run_suite(table, params.validate_)
    reasons: dict[tuple[str, int], list[str]] = {}
    for finding in findings:
        for r in finding["refused"]:
            reasons.setdefault((r["source"], r["row"]), []).append(finding["rule"])
    refused = sorted(reasons)
    said = {(record["source"], record["row"]): (record["image"], record["expression"]) for record in table}
    summary = {
        "rows": {name: len(source) for name, source in rows.items()},
        "refused": {name: sum(source == name for source, _ in refused) for name in rows},
        "rules": {finding["rule"]: len(finding["refused"]) for finding in findings},
    }
    folder = REFUSED.parent
    write_json(folder / "validation.json", {"passed": not refused, **summary, "findings": findings})
    write_atomically(folder / "validation.md", _markdown(params, summary, findings, said))
    write_jsonl(
        REFUSED,
        [{"source": s, "row": r, "image": said[s, r][0], "rules": reasons[s, r]} for s, r in refused],
    )
    write_json(Path("metrics/validate.json"), {"rows_looked_at": len(table), "rows_refused": len(refused)})
    print(f"validate: {len(table)} rows, {len(refused)} refused; see {folder}/validation.md")
    if refused and params.validate_.on_failure == "stop":
        broken = next(f for f in findings if f["refused"])
        first = broken["refused"][0]
        raise ValueError(
            f"{len(refused)} rows refused; the first is {first['source']} row {first['row']}"
            f" ({said[first['source'], first['row']][0]}): want: {broken['wants']}. All are in {folder}/validation.md."
            " Mend them, or set validate.on_failure to skip to go on without them"
        )


def _markdown(
    params: Params,
    summary: dict[str, Any],
    findings: list[dict[str, Any]],
    said: dict[tuple[str, int], tuple[str, str]],
) -> str:
    """The report for people."""
    lines = ["# Validation", "", "| source | used for | rows | refused |", "|---|---|---|---|"]
    for name, count in summary["rows"].items():
        lines.append(f"| {name} | {params.data.sources[name].role} | {count} | {summary['refused'][name]} |")
    lines += ["", "| rule | what is wanted | refused |", "|---|---|---|"]
    lines += [f"| {f['rule']} | {f['wants']} | {len(f['refused'])} |" for f in findings]
    for finding in findings:
        if not finding["refused"]:
            continue
        lines += [
            "",
            f"## {finding['rule']}: {finding['wants']}",
            "",
            "| source | row | picture | expression | value |",
            "|---|---|---|---|---|",
        ]
        for r in finding["refused"][:SHOWN]:
            image, expression = (_cell(text) for text in said[r["source"], r["row"]])
            lines.append(f"| {r['source']} | {r['row']} | {image} | {expression} | {r['value']} |")
        if len(finding["refused"]) > SHOWN:
            lines.append(f"\n… and {len(finding['refused']) - SHOWN} more, all in validation.json.")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text from data as one short Markdown cell."""
    return " ".join(text.split())[:80].replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    run_stage("validate", main)
