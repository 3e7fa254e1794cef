"""The gate on plain scores: what passes, what is refused and why, what is told."""

import json
import re

import pytest

from tests.conftest import ROOT, default_params
from vlmr1.gate import Decision, Scores, decide, scores_of
from vlmr1.recipes import apply
from vlmr1.settings import Gate, load_params

GATE = Gate(label="prod", improve=("hard",), keep={"easy": 0.02}, level=0.05, gain=0.0)


def scores(right, n=100, title="Acc@0.5"):
    """`right` of n items right, the first ones."""
    return Scores(title, {item: float(item < right) for item in range(n)})


def decision(hard=(40, 60), easy=(98, 98)) -> Decision:
    """(promoted, candidate) items right of a hundred on each source."""
    theirs = {"hard": scores(hard[0]), "easy": scores(easy[0]), "told": scores(50)}
    ours = {"hard": scores(hard[1]), "easy": scores(easy[1]), "told": scores(0)}
    return decide(ours, theirs, "v3", GATE)


def test_better_where_it_must_be_and_no_worse_elsewhere_passes_with_its_reasons():
    found = decision()
    assert found.allowed
    assert (
        "hard: wanted is better by more than noise" in found.says and "easy: wanted is at most 0.02 lost" in found.says
    )
    assert [row["verdict"] for row in found.table] == ["passed", "passed", ""]  # what is only told decides nothing


@pytest.mark.parametrize("hard", [(40, 40), (40, 43), (60, 40)])
def test_no_gain_a_gain_within_noise_and_a_loss_are_refused(hard):
    found = decision(hard=hard)
    assert not found.allowed and len(found.reasons) == 1
    assert "hard: wanted is better by more than noise; a difference of" in found.says


@pytest.mark.parametrize("after, allowed", [(100, True), (96, True), (95, False)])
def test_a_loss_is_allowed_up_to_the_threshold_itself(after, allowed):
    found = decision(easy=(98, after))
    assert found.allowed == allowed
    assert allowed or "easy: wanted is at most 0.02 lost; a difference of -0.03" in found.says


def test_every_failure_is_named():
    assert len(decision(hard=(40, 40), easy=(98, 50)).reasons) == 2


def test_the_table_shows_both_figures_the_difference_with_its_interval_and_the_verdict():
    row = decision().table[0]
    assert (row["candidate"], row["v3"], row["n"]) == (0.6, 0.4, 100)
    assert row["difference"].startswith("+0.200 [+0.1") and row["noise"] == "no"


def test_means_are_compared_by_pairs():
    """A gain far smaller than the scatter between items, but the same on all of them, is no noise."""
    values = {item: item / 100 for item in range(100)}
    ours = {"hard": Scores("mean AP", {item: value + 0.01 for item, value in values.items()}), "easy": scores(9)}
    assert decide(ours, {"hard": Scores("mean AP", values), "easy": scores(9)}, "v1", GATE).allowed


@pytest.mark.parametrize("level, allowed", [(0.05, True), (0.005, False)])
def test_what_counts_as_noise_is_said_by_the_parameters(level, allowed):
    """Nine items won and one lost of a hundred: p = 0.02."""
    ours, theirs = scores(60), scores(51)
    ours.items[0] = 0.0
    theirs.items[0] = 1.0
    gate = GATE.model_copy(update={"level": level, "keep": {}})
    found = decide({"hard": ours}, {"hard": theirs}, "v3", gate)
    assert "p = 0.0215" in found.says and found.allowed == allowed


@pytest.mark.parametrize("gain, allowed", [(0.2, True), (0.21, False)])
def test_a_gain_may_have_to_be_worth_it(gain, allowed):
    found = decide({"hard": scores(60)}, {"hard": scores(40)}, "v3", GATE.model_copy(update={"gain": gain, "keep": {}}))
    assert found.allowed == allowed and f"better by more than noise and by {gain}" in found.says


def test_items_of_one_picture_are_no_independent_evidence():
    """Ten gained items of a hundred: more than noise where each has its picture, not where two pictures hold them."""
    gate = GATE.model_copy(update={"keep": {}})
    pictures = {item: (f"{item // 5}.png",) for item in range(100)}
    ours, theirs = ({"hard": Scores("Acc@0.5", scores(right).items, pictures)} for right in (50, 40))
    found = decide(ours, theirs, "v3", gate)
    assert not found.allowed and "95 % interval" in found.says and "20 pictures" in found.says
    assert decide({"hard": scores(50)}, {"hard": scores(40)}, "v3", gate).allowed


@pytest.mark.parametrize("theirs", [{}, {"hard": scores(4, 99)}, {"hard": scores(4, title="accuracy")}])
def test_items_that_are_not_the_same_are_refused(theirs):
    with pytest.raises(ValueError, match="hard: candidate and promoted version were not asked the same"):
        decide({"hard": scores(40)}, theirs, "v3", GATE)


def test_scores_are_read_as_the_evaluation_leaves_them(tmp_path):
    figures = {"in": {"greedy": {"judged": "mean_ap"}}}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    rows = [{"index": i, "ap": ap, "ap50": 1.0, "image": ["a.png"]} for i, ap in ((7, 0.5), (8, 0.25))]
    (tmp_path / "in-greedy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert scores_of(tmp_path) == {"in": Scores("mean AP", {7: 0.5, 8: 0.25}, {7: ("a.png",), 8: ("a.png",)})}


def test_the_trial_of_the_docs_is_refused_as_it_is_and_passes_with_its_sets(tmp_path):
    """The smoke recipe's models answer one of 24 items rightly, or none."""
    text = (ROOT / "docs/operations.md").read_text()
    (sets,) = [json.loads(found) for found in re.findall(r"-p 'sets=(.*gate.*)'", text)]
    base, one = ({name: scores(n, 24) for name in ("larger", "in_domain", "new_colours")} for n in (0, 1))
    params = tmp_path / "params.yaml"
    for laid, passes in (([], False), (sets, True)):
        params.write_text(default_params())
        apply(ROOT / "recipes/smoke.yaml", laid, params)
        assert decide(one, base, "the base", load_params(params).gate).allowed == passes


def test_a_gate_that_asks_nothing_is_refused():
    with pytest.raises(ValueError, match="a gate that asks nothing is none"):
        Gate(**GATE.model_dump() | {"improve": (), "keep": {}})


def test_a_source_in_both_lists_or_of_no_such_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="improve asks more of it already"):
        Gate(**GATE.model_dump() | {"improve": ("a",), "keep": {"a": 0.1}})
    params = tmp_path / "params.yaml"
    params.write_text(default_params().replace("improve: [larger]", "improve: [bigger]"))
    with pytest.raises(ValueError, match="gate: bigger is no source of role evaluate; there is: in_domain"):
        load_params(params)
