"""The gate as a retraining meets it: who is promoted now, what that answers to the candidate's items, what is decided.

What is decided on plain data is in `vlmr1.gate`. The promoted version is asked in a process of its own, once for every
version, data, settings and code.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from flows.running import device_for, run_logged
from flows.showing import show_table, show_text
from vlmr1.errors import RETRY
from vlmr1.gate import Decision, decide, scores_of
from vlmr1.release.log import Entry, read_log, standing
from vlmr1.release.store import open_store
from vlmr1.settings import Params, load_params
from vlmr1.stages.promoted import place_of

PASSED, REFUSED, ALREADY = "Passed", "Refused", "Already promoted"
PREDICTIONS = Path("predictions")
CANDIDATE, BASE = "grpo", "base"  # policies


class AskingFailed(RuntimeError):
    """The promoted version could not be asked."""


class AskingFailedForNow(AskingFailed):
    """It could not be asked, which may mend itself."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found of a published candidate."""

    name: str
    version: str
    outcome: str  # PASSED, REFUSED or ALREADY
    incumbent: str | None  # the version that was promoted then
    rival: str  # what it was compared with
    decision: Decision | None  # None where nothing was compared
    why: str = ""  # then

    @property
    def release(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def says(self) -> str:
        if self.decision is None:
            return self.why
        return f"compared with {self.rival}: {self.decision.says}"


def judge(force: bool) -> Verdict:
    """The verdict on the candidate that this folder's pipeline has published. Raises AskingFailed.

    What a person has rolled back is not promoted again by itself, unless it is to be by `force`.
    """
    params = load_params()
    published = json.loads(Path("reports/published.json").read_text(encoding="utf-8"))
    name, version = published["name"], published["version"]
    log = read_log(open_store(params.publish.store), name)
    incumbent = standing(log, params.gate.label)
    if incumbent == version:
        why = f"{name}@{version} is the very version that is promoted: the same content again"
        return Verdict(name, version, ALREADY, incumbent, f"{name}@{version}", None, why)
    back = _rolled_back(log, version)
    if back is not None and not force:
        why = f"{name}@{version} was rolled back ({back}); `force` judges it all the same"
        return Verdict(name, version, REFUSED, incumbent, "nothing", None, why)
    if incumbent is None:
        rival, theirs = "the base", PREDICTIONS / BASE
    else:
        rival, theirs = f"{name}@{incumbent}", _answers_of(params, name, incumbent)
    decision = decide(scores_of(PREDICTIONS / CANDIDATE), scores_of(theirs), rival, params.gate)
    return Verdict(name, version, PASSED if decision.allowed else REFUSED, incumbent, rival, decision)


def _rolled_back(log: list[Entry], version: str) -> str | None:
    """Why somebody rolled a version back and promoted it no more since; None where nobody did."""
    why = None
    for at, entry in enumerate(log):
        if entry.event == "rolled back" and standing(log[:at], entry.label) == version:
            why = entry.reason or "no reason was given"
        elif entry.version == version and entry.event in ("promoted", "rolled back"):
            why = None
    return why


def _answers_of(params: Params, name: str, version: str) -> Path:
    """The promoted version's answers to the candidate's items, asked now where they were not before."""
    place = place_of(params, version)
    if not (place / "figures.json").is_file():
        command = [sys.executable, "-m", "vlmr1.stages.promoted", "--release", f"{name}@{version}", "--to", str(place)]
        with device_for("promoted"):
            said, code = run_logged(command)
        if code:
            fault = AskingFailedForNow if code == RETRY else AskingFailed
            raise fault(f"{name}@{version} could not be asked: {' '.join(said[-2:])}")
    return place


def show(verdict: Verdict) -> None:
    """The decision with its reasons, and the table it rests on."""
    reasons = verdict.decision.reasons if verdict.decision else (verdict.says,)
    text = f"## {verdict.outcome}: {verdict.release}\n\n"
    if verdict.decision is not None:
        text += f"Compared with {verdict.rival}, on the same items:\n\n"
    text += "".join(f"- {reason}\n" for reason in reasons)
    if verdict.decision is not None:
        rows = verdict.decision.table
        heads = ["promoted" if key == verdict.rival and "@" in key else key for key in rows[0]]  # so that it fits
        text += f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
        text += "".join(f"| {' | '.join(map(str, row.values()))} |\n" for row in rows)
        show_table("gate-table", rows, f"{verdict.release} against {verdict.rival}, greedy")
    show_text("gate", text, f"{verdict.release}: {verdict.outcome.lower()}, and why")
