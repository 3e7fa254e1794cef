"""validate: look at every raw annotation and picture before anything else does. Run: `python -m vlmr1.stages.validate`.

Writes reports/validation/: validation.json (every rule, every source's balance), validation.md (the same for people,
with pictures), refused.jsonl (what convert leaves out). With `validate.on_failure: stop` a refused row ends the
pipeline here; a rule named in `validate.warnings` refuses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from vlmr1.files import rounded, whole_folder, write_atomically, write_json
from vlmr1.grpo.wanted import check_rewards
from vlmr1.progress import counted, progress
from vlmr1.rows import Row
from vlmr1.sample import write_jsonl
from vlmr1.settings import Params
from vlmr1.settings.sources import SourceSpec
from vlmr1.sources import read_source
from vlmr1.stages import REFUSED, run_stage
from vlmr1.validation.baselines import Balance
from vlmr1.validation.findings import Findings
from vlmr1.validation.gallery import Gallery
from vlmr1.validation.pictures import Looks
from vlmr1.validation.rules import Desk, Offence, rules
from vlmr1.validation.table import Repeats, columns

CHUNK = 20_000  # rows
AHEAD = 2  # chunks that are read while the suite looks at others
SHOWN = 50  # rows a rule shows in the Markdown


def main(params: Params) -> None:
    check_rewards(params)
    settings, root = params.validate_, Path(params.data.root)
    findings, balances = Findings(rules(settings), settings.warnings), {}
    gallery, repeats = Gallery(), Repeats()
    with closing(Desk(settings)) as desk, closing(Looks(settings)) as looks:
        waiting: deque[tuple[str, list[Row], Future[list[Offence]]]] = deque()  # chunks that the suite looks at

        def note(most: int) -> None:
            """Note what was found until at most so many chunks wait."""
            while len(waiting) > most:
                name, rows, found = waiting.popleft()
                for offence, row in findings.add(name, rows, found.result()):
                    gallery.keep(offence, root / params.data.sources[name].images, name, row)

        # Evaluation first: training rows are held to its pictures.
        for name, spec in sorted(params.data.sources.items(), key=lambda one: one[1].role != "evaluate"):
            balances[name], findings.rows[name] = Balance(), 0
            for rows in chunks(counted_rows(name, spec, root, params.data.embedded)):
                if settings.decode != "none":
                    with progress(f"pictures of {name}", None) if settings.decode == "full" else nullcontext() as bar:
                        looks.look(root / spec.images, rows, bar.update if bar is not None else lambda _: None)
                table = columns(name, spec, root, rows, looks, repeats)
                findings.looked |= {key for key, values in table.items() if any(v is not None for v in values)}
                waiting.append((name, rows, desk.look(table)))
                for row in rows:
                    facts = looks.of(root / spec.images, row) if settings.decode != "none" else ()
                    balances[name].add(row, facts[0].size if facts and facts[0].size else None)
                note(AHEAD)
        note(0)
    told = {name: balances[name].summary() for name in params.data.sources}
    with whole_folder(REFUSED.parent) as folder:
        drawn = gallery.draw(folder / "pictures", settings.max_picture_pixels)
        summary = findings.summary()
        write_json(folder / "validation.json", rounded({**summary, "findings": findings.report(), "balance": told}))
        write_atomically(folder / "validation.md", _markdown(params, findings, told, drawn))
        write_jsonl(folder / REFUSED.name, findings.refused_rows())
    looked, refused = sum(findings.rows.values()), len(findings.refused)
    warned = sum(findings.of_rule(rule) for rule in settings.warnings)
    write_json(Path("metrics/validate.json"), {"rows_looked_at": looked, "rows_refused": refused, "warnings": warned})
    print(f"validate: {looked} rows, {refused} refused, {warned} warnings; see {REFUSED.parent}/validation.md")
    if findings.first is not None and settings.on_failure == "stop":
        source, number, offence = findings.first
        image = findings.pictures[source, number]
        raise ValueError(
            f"{refused} rows refused; the first is {source} row {number}{f' ({image})' if image else ''}: want:"
            f" {findings.rules[offence.rule].says}; found: {offence.value}. All are in {REFUSED.parent}/validation.md."
            " Mend them, or set validate.on_failure to skip to go on without them"
        )


def counted_rows(name: str, spec: SourceSpec, root: Path, embedded: bool) -> Iterator[Row]:
    """A source's rows, shown as they are read. Raises FileNotFoundError naming the source whose list is missing."""
    with progress(f"looking at {name}", None) as bar:
        try:
            yield from counted(read_source(spec, root), bar)
        except FileNotFoundError as error:
            world = spec.annotations.partition("/")[0]
            mend = f"world.{world}.splits draws no such list" if embedded else "mend its annotations, or data.root"
            raise FileNotFoundError(f"data.sources.{name}: {error}; {mend}") from error


def chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _markdown(params: Params, findings: Findings, balances: dict[str, Any], drawn: list[str]) -> str:
    """The report for people."""
    summary = findings.summary()
    lines = ["# Validation", "", "Rows are counted from 0, without the head of a table.", ""]
    lines.append("| source | used for | rows | refused | what a constant answer would score |")
    lines.append("|---|---|---|---|---|")
    for name in params.data.sources:
        constant = ", ".join(f"{what} {score:.3f}" for what, score in balances[name]["constant"].items())
        cells = (params.data.sources[name].role, summary["rows"][name], summary["refused"][name], _cell(constant))
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines += ["", "| rule | what is wanted | refused | warned |", "|---|---|---|---|"]
    for one in findings.report():
        count = sum(one["rows"].values())
        counts = _where(count, one["refuses"]) if one["looked"] else ("not looked at", "")
        lines.append(f"| {one['rule']} | {_cell(one['wants'])} | {' | '.join(counts)} |")
    for one in findings.report():
        if one["examples"]:
            lines += ["", f"## {one['rule']}: {_cell(one['wants'])}", ""]
            if one["rule"] in drawn:
                lines += [f"![{one['rule']}](pictures/{one['rule']}.png)", ""]
            lines += ["| source | row | field | value | picture | text |", "|---|---|---|---|---|---|"]
            for e in one["examples"][:SHOWN]:
                shown = (_cell(e[key]) for key in ("value", "image", "text"))
                lines.append(f"| {e['source']} | {e['row']} | {e['field']} | {' | '.join(shown)} |")
            if (more := sum(one["rows"].values()) - SHOWN) > 0:
                lines.append(f"\n… and {more} more; validation.json has the first thousand.")
    lines += ["", "## Balance", ""]
    for name, balance in balances.items():
        for what in ("answers", "labels"):
            if what in balance:
                most = ", ".join(f"{_cell(k)} {v}" for k, v in balance[what]["most"].items())
                lines.append(f"- {name}: {balance[what]['different']} different {what}; most often {most}")
        if "kinds" in balance:
            lines.append(f"- {name}: " + ", ".join(f"{_cell(k)} {v}" for k, v in balance["kinds"].items()))
        if balance.get("without_target"):
            lines.append(f"- {name}: {balance['without_target']} rows have nothing to find")
    return "\n".join(lines) + "\n"


def _where(count: int, refuses: bool) -> tuple[str, str]:
    return (str(count), "") if refuses else ("", str(count))


def _cell(text: str) -> str:
    """Text from data as one short Markdown cell."""
    return " ".join(text.split())[:120].replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    run_stage("validate", main)
