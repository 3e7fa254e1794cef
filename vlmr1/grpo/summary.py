"""What a GRPO run came to: reward at both ends of training with its standard error, last figures, alarms."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from vlmr1.sample import lines_of
from vlmr1.settings import Grpo

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer

SHOWN = ("completion_length", "parse_failure_rate", "zero_variance_share", "truncated_share", "duplicate_share")
OF_LOSS = ("kl", "clip_low_share", "clip_high_share", "entropy")


def summarise(trainer: GrpoTrainer, rows: list[dict[str, float]]) -> dict[str, Any]:
    """Figures for metrics/grpo.json."""
    alarms = []
    if trainer.journal.alarms.is_file():
        alarms = [json.loads(line) for line in lines_of(trainer.journal.alarms.read_text(encoding="utf-8"))]
    looks = {f"step_{row['step']}": row["holdout/judged"] for row in rows if "holdout/judged" in row}
    return (
        reward_gain(rows, trainer.grpo)
        | {"prompts_dropped": trainer.prompts.dropped, "shared_prefix": trainer.policy.shared, "alarms": alarms}
        | ({"holdout_judged": looks} if looks else {})
    )


def reward_gain(rows: list[dict[str, float]], settings: Grpo) -> dict[str, Any]:
    """Reward at both ends of training, with its standard error, and the means of the last tenth.

    Rewards are counted once a set of rollouts: each set has its own prompts, so sets are the independent units.
    """
    sets = [row for row in rows if (row["step"] - 1) % settings.num_iterations == 0]
    tenth = max(1, len(sets) // 10)
    first, last = ([row["reward"] for row in part] for part in (sets[:tenth], sets[-tenth:]))
    gain = statistics.fmean(last) - statistics.fmean(first)
    figures: dict[str, Any] = {
        "prompts_seen": len(sets) * settings.prompts_per_step,
        "reward_first_tenth": statistics.fmean(first),
        "reward_last_tenth": statistics.fmean(last),
    }
    if tenth > 1:
        error = ((statistics.variance(first) + statistics.variance(last)) / tenth) ** 0.5
        figures["reward_gain_standard_error"] = error
        if error:
            figures["reward_gain_in_standard_errors"] = gain / error
    end = rows[-tenth * settings.num_iterations :]
    shown = (*SHOWN, *OF_LOSS)
    return figures | {f"{key}_last_tenth": statistics.fmean(r[key] for r in end) for key in shown if key in end[0]}
