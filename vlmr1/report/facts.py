"""What a run showed, as plain data: the table, differences on the same items with intervals, and sentences about them.

A difference counts as one only when its 95 % interval leaves zero out; everything else is called unclear. Sources may
be of any task; each is judged by its own measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmr1.evaluation.intervals import disagreements, mcnemar, paired_difference
from vlmr1.evaluation.summary import per_item
from vlmr1.measures import MEASURES, TITLES
from vlmr1.policies import LABELS

PAIRS = (
    ("grpo", "base"),
    ("sft-samples", "base"),
    ("sft-compute", "base"),
    ("grpo", "sft-samples"),
    ("grpo", "sft-compute"),
)
CLEAR_GAIN = 4.0  # standard errors by which the reward must rise before the report calls it a rise

Predictions = Mapping[str, Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]]  # policy, source, way


def differences(predictions: Predictions) -> list[dict[str, Any]]:
    """Every pair of policies on every source, every way of decoding and every measure, item by item.

    `judged` marks the measure that the source's task is judged by; `p` is McNemar's, of right against wrong answers
    where each item has one.
    """
    found = []
    for ours, theirs in PAIRS:
        for source, ways in predictions[ours].items():
            for way, mine in ways.items():
                other = predictions[theirs][source][way]
                names = [name for name in MEASURES if name in mine[0]]
                for name in names:
                    a, b = per_item(mine, name), per_item(other, name)
                    if list(a) != list(b) or len(mine) != len(other):
                        raise ValueError(
                            f"{source}: {ours} and {theirs} were asked different items; evaluate both again"
                        )
                    means = [[sum(values) / len(values) for values in policy.values()] for policy in (a, b)]
                    mean, low, high = paired_difference(*means)
                    verdict = "better" if low > 0 else "worse" if high < 0 else "unclear"
                    single = MEASURES[name].proportion and len(mine) == len(a)
                    found.append(
                        {"ours": ours, "theirs": theirs, "source": source, "way": way, "measure": name}
                        | {"judged": name == names[0], "mean": mean, "low": low, "high": high, "verdict": verdict}
                        | ({"p": mcnemar(*disagreements(*means))} if single else {})
                    )
    return found


def sentences(
    found: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    table: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[str]:
    """Plain sentences for what improved, what got worse and what cannot be told, the reward first.

    `found` is what `differences` found, `training` GRPO's metrics, `sources` the converted set's sources.json, `table`
    every policy's figures. Among many differences some single one always looks like a gain, so the page also says
    where the intervals of GRPO and the base stand apart.
    """
    title = title_of(table)
    said = [_reward_sentence(training), *(f"Alarm: {alarm['message']}" for alarm in training["alarms"])]
    for ours, theirs in PAIRS:
        part = [d for d in found if (d["ours"], d["theirs"]) == (ours, theirs)]
        said.append(_comparison(ours, theirs, part, title))
    trained = sum(source["samples"] for source in sources.values() if source["role"] == "train")
    before, after = ({s: how["greedy"] for s, how in table[policy].items()} for policy in ("base", "grpo"))
    apart = [s for s, f in after.items() if f[f"{f['judged']}_low"] > before[s][f"{f['judged']}_high"]]
    gains = [d for d in found if (d["ours"], d["theirs"], d["way"]) == ("grpo", "base", "greedy") and d["judged"]]
    rise = training.get("reward_gain_in_standard_errors", 0.0) > CLEAR_GAIN
    if not apart and not rise and not any(d["verdict"] == "better" for d in gains):
        said.insert(
            0,
            f"GRPO improved nothing beyond noise. It saw {training['prompts_seen']} prompts from {trained} training"
            " rows: this run shows that the pipeline works, not that the model learned.",
        )
    elif not apart:
        said.append(
            f"On no source do the greedy {title} intervals of GRPO and the base stand apart: take gains as hints."
        )
    refused = {name: source["refused"] for name, source in sources.items() if source["refused"]}
    if refused:
        listed = ", ".join(f"{name} {n} of {sources[name]['rows']}" for name, n in refused.items())
        said.append(f"Rows left out by validation: {listed}; reports/validation/validation.md names each.")
    chance = round(len(found) * 0.05)
    said.append(f"{len(found)} differences were looked at, each at 95 %: about {chance} would show by chance alone.")
    return said


def title_of(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """What the sources are judged by, in a word."""
    titles = {TITLES[f["judged"]] for ways in next(iter(table.values())).values() for f in ways.values()}
    return titles.pop() if len(titles) == 1 else "score"


def _reward_sentence(training: Mapping[str, Any]) -> str:
    first, last = training["reward_first_tenth"], training["reward_last_tenth"]
    change = f"Mean reward went from {first:.3f} in the first tenth of training to {last:.3f} in the last"
    if "reward_gain_in_standard_errors" not in training:
        return f"{change}; too few steps, or rewards too equal, to say whether that is more than noise."
    gain = training["reward_gain_in_standard_errors"]
    verdict = "a clear rise" if gain > CLEAR_GAIN else "not a clear rise" if gain > -CLEAR_GAIN else "a clear fall"
    return f"{change}: {gain:+.1f} standard errors, {verdict}."


def _comparison(ours: str, theirs: str, part: Sequence[Mapping[str, Any]], title: str) -> str:
    """What a pair's greedy answers show by their judged measure, then where others say that ours is worse."""
    main = [d for d in part if d["judged"] and d["way"] == "greedy"]

    def listed(verdict: str) -> str:
        some = [f"{d['source']} ({d['mean']:+.3f})" for d in main if d["verdict"] == verdict]
        return ", ".join(some) or "nowhere"

    unclear = ", ".join(d["source"] for d in main if d["verdict"] == "unclear") or "none"
    lost = [
        f"{d['source']} ({MEASURES[d['measure']].title}, {d['way']}, {d['mean']:+.3f})"
        for d in part
        if d["verdict"] == "worse" and d not in main
    ]
    also = f" By other measures {LABELS[ours]} is worse on {', '.join(lost)}." if lost else ""
    if all(d["verdict"] == "unclear" for d in main):
        return f"{LABELS[ours]} against {LABELS[theirs]}, greedy {title}: no clear difference anywhere.{also}"
    return (
        f"{LABELS[ours]} against {LABELS[theirs]}, greedy {title}: better on {listed('better')}; worse on"
        f" {listed('worse')}; no clear difference: {unclear}.{also}"
    )
