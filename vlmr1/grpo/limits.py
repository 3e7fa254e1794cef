"""Limits that would make right answers impossible, found before any training."""

from __future__ import annotations

from collections.abc import Sequence

from vlmr1.families.base import Family
from vlmr1.sample import Source
from vlmr1.tasks import TASKS


def check_length(family: Family, sources: Sequence[Source], longest: int) -> None:
    """Refuse a completion limit that would cut off right answers. Raises ValueError naming the first such row."""
    for source in sources:
        for sample in source.samples:
            size = sample.sizes[0] if sample.sizes else (0, 0)
            needed = len(family.encode_completion(TASKS[sample.task].target(sample, size)))
            if needed > longest:
                raise ValueError(
                    f"grpo.max_completion_length: {longest} tokens cut off a right answer to {source.name} id"
                    f" {sample.id}, which takes {needed}; give it more"
                )
