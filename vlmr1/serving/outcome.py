"""What bench-serve shows and keeps of a measurement: a table, a plot, and all of it as JSON.

VLM-R1's table of an Ascend 910B stands under ours, marked as theirs, with a word on whether the load was the same.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from vlmr1 import __version__
from vlmr1.serving.bench import Load
from vlmr1.serving.client import Server
from vlmr1.serving.figures import (
    ENOUGH,
    Level,
    Levels,
    failures_of,
    figures,
    level_of,
    level_ratios,
    ratios_of_all,
    reasons,
)

# All that VLM-R1 publishes of Qwen2.5-VL on an Ascend 910B, by requests under way.
THEIR_SIZE, THEIR_TOKENS = (640, 640), 512
THEIRS: dict[str, dict[int, Level]] = {
    "xllm": {
        1: {"tokens_per_second": 59.1, "ttft_mean": 0.775},
        8: {"tokens_per_second": 402.5, "ttft_mean": 0.677},
        32: {"tokens_per_second": 1138.5, "ttft_mean": 2.739},
    },
    "vllm-ascend": {
        1: {"tokens_per_second": 17.9, "ttft_mean": 1.333},
        8: {"tokens_per_second": 140.4, "ttft_mean": 0.479},
        32: {"tokens_per_second": 501.5, "ttft_mean": 1.462},
    },
}
COLUMNS = {  # a figure, and what a person reads
    "rps": "requests/s",
    "tokens_per_second": "tokens/s",
    "latency_mean": "latency",
    "latency_p99": "P99",
    "ttft_mean": "first token",
    "ttft_p99": "P99",
    "tpot_mean": "a token",
    "success": "success",
}
WIDTH = 12  # of a column
LATE = 0.8  # of the latency, for a first token that says little


@dataclass
class Outcome:
    """A measurement, as far as it has come."""

    servers: list[Server]
    programs: list[str]  # what each server says it is, e.g. "vllm 0.32.0"
    load: Load
    harness: str
    stopped: str = ""  # why it ended early
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    levels: list[Levels] = field(default_factory=list)  # of each server

    def __post_init__(self) -> None:
        self.levels = [{at_once: [] for at_once in self.load.concurrency} for _ in self.servers]

    @property
    def letters(self) -> str:
        return "AB"[: len(self.servers)]

    @property
    def asked(self) -> str:
        """The load, for people."""
        width, height = self.load.size
        length = f"{'' if self.load.exactly else 'at most '}{self.load.tokens}"
        return f"pictures of {width}x{height}, answers of {length} tokens"

    @property
    def as_theirs(self) -> bool:
        """Whether the load is that of the original's table."""
        return (self.load.size, self.load.tokens, self.load.exactly) == (THEIR_SIZE, THEIR_TOKENS, True)


def table(of: Outcome) -> str:
    """A row for each server and number of requests under way, of two servers their ratio too; theirs underneath."""
    named = zip(of.letters, of.servers, of.programs, strict=True)
    lines = [f"{letter}: {server} ({program})" for letter, server, program in named]
    lines.append(f"{of.asked}; {of.load.rounds} rounds, seed {of.load.seed}; measured by {of.harness}")
    lines += ["", _line("at once", "", "n", COLUMNS.values())]
    for at_once in of.load.concurrency:
        for place, (letter, levels) in enumerate(zip(of.letters, of.levels, strict=True)):
            level = level_of(levels[at_once])
            cells = (_cell(key, level) for key in COLUMNS)
            lines.append(_line("" if place else str(at_once), letter, str(level["requests"]), cells))
        if len(of.levels) == 2:
            lines += _ratios("", level_ratios(of.levels[0], of.levels[1], at_once), of.load.rounds)
    if len(of.levels) == 2:
        lines += _ratios("all", ratios_of_all(of.levels[0], of.levels[1]), of.load.rounds)
    return "\n".join([*lines, "", *_notes(of), "", *_theirs(of)])


def _ratios(at_once: str, ratios: dict[str, dict[str, float]], rounds: int) -> list[str]:
    shown = [ratios.get(key) for key in COLUMNS]
    lines = [_line(at_once, "B/A", "", (f"{one['median']:.2f}" if one else "" for one in shown))]
    spread = (f"{one['least']:.2f}-{one['most']:.2f}" if one else "" for one in shown)
    return [*lines, *([_line("", "from-to", "", spread)] if rounds > 1 else [])]


def _notes(of: Outcome) -> list[str]:
    lines = [f"n: requests of all rounds; of means the median round; *: the largest, n being below {ENOUGH}."]
    if len(of.levels) == 2 and of.load.rounds > 1:
        lines.append(
            "B/A: the median round's ratio; from-to: its least and most. With 1 among them no difference is shown (of"
            f" servers that are alike, so in {1 - 2 ** (1 - of.load.rounds):.0%} of the cells)."
        )
    for letter, levels in zip(of.letters, of.levels, strict=True):
        late = ", ".join(str(c) for c, rounds in levels.items() if _late(level_of(rounds)))
        if late:
            lines.append(
                f"{letter}: at {late} at once the first token comes after {LATE:.0%} of the latency, or later: the"
                " server takes that long to read the picture, or sends its tokens in a burst."
            )
        if (said := reasons(one for rounds in levels.values() for one in rounds)) and not of.stopped:
            lines.append(f"{letter} failed: {said}")
    return lines


def _late(level: Level) -> bool:
    return "ttft_mean" in level and level["ttft_mean"] > LATE * level["latency_mean"]


def _theirs(of: Outcome) -> list[str]:
    """The original's table, and what it is worth beside ours."""
    width, height = THEIR_SIZE
    load = f"{width}x{height}, {THEIR_TOKENS} tokens"
    lines = [f"Theirs, not ours: all that VLM-R1 publishes of Qwen2.5-VL on an Ascend 910B ({load})"]
    if of.as_theirs:
        lines.append("Measured with the load above; models and machines differ.")
    else:
        lines.append("Of ANOTHER load than above, so not comparable; that load is the default of bench-serve.")
    lines.append(_line("at once", "theirs", "", ["tokens/s", "first token"]))
    for at_once in (1, 8, 32):
        for name, levels in THEIRS.items():
            cells = (_cell(key, levels[at_once]) for key in ("tokens_per_second", "ttft_mean"))
            lines.append(_line(str(at_once), name, "", cells))
    return lines


def _line(at_once: str, server: str, number: str, cells: Iterable[str]) -> str:
    return f"{at_once:>7}  {server:<11}{number:>4}".ljust(24) + "".join(f"{cell:>{WIDTH}}" for cell in cells).rstrip()


def _cell(key: str, level: Level) -> str:
    """A figure with its unit; `*` where a P99 is of too few."""
    if key not in level:
        return "-"
    value = level[key]
    if key == "success":
        return f"{math.floor(value * 1000) / 10:g} %"  # 100 only where all were
    if key in ("rps", "tokens_per_second"):
        return f"{value:.{1 if value >= 10 else 2 if value >= 0.1 else 4}f}"
    few = "*" if key.endswith("_p99") and level["requests"] * level["success"] < ENOUGH else ""
    return seconds(value) + few


def seconds(value: float) -> str:
    """A time as a person reads it: 1.52 s, 180 ms, 5.3 ms, 0.08 ms."""
    if value >= 1:
        return f"{value:.2f} s"
    digits = 0 if value >= 0.1 else 1 if value >= 0.001 else 2
    return f"{value * 1000:.{digits}f} ms"


def plot(of: Outcome, path: Path) -> None:
    """Tokens a second, time to first token and latency against the requests under way; bars: least to most round."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    shown = {"tokens_per_second": "tokens a second", "ttft_mean": "first token, s", "latency_mean": "latency, s"}
    for axes, (key, title) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        for letter, server, levels in zip(of.letters, of.servers, of.levels, strict=True):
            points = {c: [figures([one])[key] for one in rounds if one.done] for c, rounds in levels.items()}
            points = {c: values for c, values in points.items() if values}
            middle = [median(values) for values in points.values()]
            below = [m - min(values) for m, values in zip(middle, points.values(), strict=True)]
            above = [max(values) - m for m, values in zip(middle, points.values(), strict=True)]
            axes.errorbar(list(points), middle, (below, above), marker="o", capsize=3, label=f"{letter}: {server}")
        axes.set(title=title, xlabel="requests under way", xscale="log")
        axes.set_xticks(of.load.concurrency, [str(c) for c in of.load.concurrency])
        axes.minorticks_off()
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
    n = [of.load.rounds * of.load.requests(c) for c in of.load.concurrency]
    figure.suptitle(
        f"{of.asked}; {min(n)} to {max(n)} requests a point, bars over rounds" + (", INCOMPLETE" if of.stopped else "")
    )
    figure.axes[0].legend(fontsize=8)
    file = io.BytesIO()
    figure.savefig(
        file, dpi=110, format=path.suffix[1:], metadata={"Software": None} if path.suffix == ".png" else None
    )
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(file.getvalue())
    temporary.replace(path)


def as_json(of: Outcome) -> dict[str, Any]:
    """All of it, for a file; times in seconds."""
    load = of.load
    width, height = load.size
    asked = {"picture": f"{width}x{height}", "tokens": load.tokens, "exactly": load.exactly, "rounds": load.rounds}
    asked |= {"seed": load.seed, "requests_a_round": {str(c): load.requests(c) for c in load.concurrency}}
    made = {"at": of.at.isoformat(timespec="seconds"), "vlmr1": __version__, "harness": of.harness}
    servers = []
    for letter, server, program, levels in zip(of.letters, of.servers, of.programs, of.levels, strict=True):
        each = {
            str(c): level_of(rounds) | {"rounds": [figures([one]) for one in rounds]} for c, rounds in levels.items()
        }
        kinds = failures_of(one for rounds in levels.values() for one in rounds)
        failures = {kind: {"count": len(said), "first": said[0]} for kind, said in kinds.items()}
        named = {"name": letter, "url": server.url, "model": server.model, "program": program}
        servers.append(named | {"levels": each, "failures": failures})
    found: dict[str, Any] = {"made": made, "complete": not of.stopped, "stopped": of.stopped or None, "load": asked}
    found["servers"] = servers
    if len(servers) == 2:
        one, two = of.levels
        found["ratios"] = {str(c): level_ratios(one, two, c) for c in load.concurrency}
        found["ratios"]["all"] = ratios_of_all(one, two)
    size = f"{THEIR_SIZE[0]}x{THEIR_SIZE[1]}"
    theirs = {"source": "VLM-R1, Qwen2.5-VL on an Ascend 910B", "picture": size, "tokens": THEIR_TOKENS}
    engines = {engine: {str(c): level for c, level in levels.items()} for engine, levels in THEIRS.items()}
    found["theirs"] = theirs | {"same_load": of.as_theirs, "engines": engines}
    return found
