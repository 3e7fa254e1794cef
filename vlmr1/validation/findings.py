"""What validation found, row by row: refused rows, warned rows, and examples of each rule, bounded in memory.

Left out on purpose: every warned row of a large set; they are counted, and the first are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmr1.rows import Row
from vlmr1.validation.rules import Offence, Wanted

KEPT = 1000  # examples of a rule


@dataclass
class Findings:
    """Gathered over the chunks of all sources."""

    rules: Mapping[str, Wanted]
    warnings: Collection[str]
    looked: set[str] = field(default_factory=set)  # rules that had something to look at, a text or a figure
    rows: Counter[str] = field(default_factory=Counter)  # looked at, a source
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, rule)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # a rule's first offending rows
    refused: dict[tuple[str, int], list[str]] = field(default_factory=dict)  # (source, row): the rules that refuse it
    first: tuple[str, int, Offence] | None = None  # of the refused rows, by source and row
    pictures: dict[tuple[str, int], str] = field(default_factory=dict)  # of refused rows, the first picture's name

    def add(self, source: str, rows: Iterable[Row], offences: Iterable[Offence]) -> list[tuple[Offence, Row]]:
        """Note a chunk's offences; returns those, with their rows, that are worth a picture."""
        by_number = {row.row: row for row in rows}
        self.rows[source] += len(by_number)
        drawn = []
        for offence in offences:
            row = by_number[offence.row]
            self.counts[source, offence.rule] += 1
            if offence.rule not in self.warnings:
                self.refused.setdefault((source, row.row), []).append(offence.rule)
                self.pictures[source, row.row] = row.images[0] if row.images else ""
                self.first = min(self.first or (source, row.row, offence), (source, row.row, offence), key=_place)
            kept = self.examples.setdefault(offence.rule, [])
            if len(kept) < KEPT:
                place = {"source": source, "row": row.row, "field": self.rules[offence.rule].field}
                kept.append({**place, "value": offence.value, **shown(row)})
                drawn.append((offence, row))
        return drawn

    def of_rule(self, rule: str) -> int:
        return sum(count for (_, name), count in self.counts.items() if name == rule)

    def summary(self) -> dict[str, Any]:
        """Counts a source and a rule."""
        refused = Counter(source for source, _ in self.refused)
        return {
            "passed": not self.refused,
            "rows": dict(self.rows),
            "refused": {source: refused[source] for source in self.rows},
            "rules": {name: self.of_rule(name) if name in self.looked else None for name in self.rules},
        }

    def report(self) -> list[dict[str, Any]]:
        """A record for each rule: what it wants, whether it refuses, how many rows offend where, the first of them."""
        return [
            {
                "rule": name,
                "wants": wanted.says,
                "refuses": name not in self.warnings,
                "looked": name in self.looked,
                "rows": {source: count for (source, rule), count in sorted(self.counts.items()) if rule == name},
                "examples": self.examples.get(name, []),
            }
            for name, wanted in self.rules.items()
        ]

    def refused_rows(self) -> list[dict[str, Any]]:
        """What conversion leaves out."""
        return [
            {"source": source, "row": row, "image": self.pictures[source, row], "rules": rules}
            for (source, row), rules in sorted(self.refused.items())
        ]


def _place(one: tuple[str, int, Offence]) -> tuple[str, int]:
    return one[:2]


def shown(row: Row) -> dict[str, str]:
    """A row as a report names it."""
    said = row.text if row.task != "ovd" else ", ".join(row.asked)
    return {"image": row.images[0] if row.images else "", "text": said[:200]}
