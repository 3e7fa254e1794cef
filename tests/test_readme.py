"""The README's table is the committed run's, figure by figure, and what it links is there."""

import json
import re

from tests.conftest import ROOT
from vlmr1.policies import LABELS

README = (ROOT / "README.md").read_text()
SETS = {
    "in domain": "in_domain",
    "larger objects": "larger",
    "new colours": "new_colours",
    "off the grid": "off_grid",
    "a distractor": "distractors",
    "relations": "relations",
}


def test_the_table_is_what_the_committed_metrics_say():
    metrics = {p: json.loads((ROOT / f"metrics/evaluate-{p}.json").read_text())["acc_0.5"] for p in LABELS}
    for shown, name in SETS.items():
        cells = next(line for line in README.splitlines() if line.startswith(f"| {shown} |")).split("|")[2:-1]
        figures = [float(re.search(r"\d\.\d{3}", cell)[0]) for cell in cells]
        assert figures == [round(metrics[policy][name], 3) for policy in LABELS], shown


def test_the_three_seeds_each_learn():
    """The claim behind the table, held on the committed figures: a clear rise, and intervals that do not overlap."""
    runs = json.loads((ROOT / "docs/seeds.json").read_text())
    assert len(runs) == 3
    for run in runs:
        assert run["grpo"]["reward_gain_in_standard_errors"] > 4
        before, after = (run["evaluation"][p]["in_domain"]["greedy"] for p in ("base", "grpo"))
        assert after["acc_0.5_low"] > before["acc_0.5_high"]


def test_every_link_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
