"""What a run showed, as plain data: the table, differences on the same items with intervals, and sentences about them.

A difference counts as one only when its 95 % interval leaves zero out; everything else is called unclear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmr1.evaluation.intervals import paired_difference
from vlmr1.policies import LABELS

MEASURES = {"hit": "Acc@0.5", "iou": "mean IoU"}
WAYS = ("greedy", "sampled")
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
    """Every pair of policies on every source, both ways of decoding and both measures, item by item."""
    found = []
    for ours, theirs in PAIRS:
        for source in predictions[ours]:
            for way in WAYS:
                mine, other = predictions[ours][source][way], predictions[theirs][source][way]
                if [p["index"] for p in mine] != [p["index"] for p in other]:
                    raise ValueError(f"{source}: {ours} and {theirs} were asked different items; evaluate both again")
                for measure in MEASURES:
                    mean, low, high = paired_difference([p[measure] for p in mine], [p[measure] for p in other])
                    verdict = "better" if low > 0 else "worse" if high < 0 else "unclear"
                    found.append(
                        {"ours": ours, "theirs": theirs, "source": source, "way": way, "measure": measure}
                        | {"mean": mean, "low": low, "high": high, "verdict": verdict}
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
    said = [_reward_sentence(training), *(f"Alarm: {alarm['message']}" for alarm in training["alarms"])]
    for ours, theirs in PAIRS:
        said.append(_comparison(ours, theirs, [d for d in found if (d["ours"], d["theirs"]) == (ours, theirs)]))
    trained = sum(source["samples"] for source in sources.values() if source["role"] == "train")
    before, after = ({s: how["greedy"] for s, how in table[policy].items()} for policy in ("base", "grpo"))
    apart = [s for s in after if after[s]["acc_0.5_low"] > before[s]["acc_0.5_high"]]
    gains = [d for d in found if (d["ours"], d["theirs"], d["measure"], d["way"]) == ("grpo", "base", "hit", "greedy")]
    rise = training.get("reward_gain_in_standard_errors", 0.0) > CLEAR_GAIN
    if not apart and not rise and not any(d["verdict"] == "better" for d in gains):
        said.insert(
            0,
            f"GRPO improved nothing beyond noise. It saw {training['prompts_seen']} prompts from {trained} training"
            " rows: this run shows that the pipeline works, not that the model learned.",
        )
    elif not apart:
        said.append(
            "On no source do the greedy Acc@0.5 intervals of GRPO and the base stand apart: take gains as hints."
        )
    refused = {name: source["refused"] for name, source in sources.items() if source["refused"]}
    if refused:
        listed = ", ".join(f"{name} {n} of {sources[name]['rows']}" for name, n in refused.items())
        said.append(f"Rows left out by validation: {listed}; reports/validation/validation.md names each.")
    chance = round(len(found) * 0.05)
    said.append(f"{len(found)} differences were looked at, each at 95 %: about {chance} would show by chance alone.")
    return said


def _reward_sentence(training: Mapping[str, Any]) -> str:
    first, last = training["reward_first_tenth"], training["reward_last_tenth"]
    change = f"Mean reward went from {first:.3f} in the first tenth of training to {last:.3f} in the last"
    if "reward_gain_in_standard_errors" not in training:
        return f"{change}; too few steps, or rewards too equal, to say whether that is more than noise."
    gain = training["reward_gain_in_standard_errors"]
    verdict = "a clear rise" if gain > CLEAR_GAIN else "not a clear rise" if gain > -CLEAR_GAIN else "a clear fall"
    return f"{change}: {gain:+.1f} standard errors, {verdict}."


def _comparison(ours: str, theirs: str, part: Sequence[Mapping[str, Any]]) -> str:
    """What a pair's greedy Acc@0.5 shows, then where the other measures say that ours is worse."""
    main = [d for d in part if (d["measure"], d["way"]) == ("hit", "greedy")]

    def listed(verdict: str) -> str:
        some = [f"{d['source']} ({d['mean']:+.3f})" for d in main if d["verdict"] == verdict]
        return ", ".join(some) or "nowhere"

    unclear = ", ".join(d["source"] for d in main if d["verdict"] == "unclear") or "none"
    lost = [
        f"{d['source']} ({MEASURES[d['measure']]}, {d['way']}, {d['mean']:+.3f})"
        for d in part
        if d["verdict"] == "worse" and d not in main
    ]
    also = f" By other measures {LABELS[ours]} is worse on {', '.join(lost)}." if lost else ""
    if all(d["verdict"] == "unclear" for d in main):
        return f"{LABELS[ours]} against {LABELS[theirs]}, greedy Acc@0.5: no clear difference anywhere.{also}"
    return (
        f"{LABELS[ours]} against {LABELS[theirs]}, greedy Acc@0.5: better on {listed('better')}; worse on"
        f" {listed('worse')}; no clear difference: {unclear}.{also}"
    )
