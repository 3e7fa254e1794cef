"""The last blocks of params.yaml: evaluation, report, publishing."""

from __future__ import annotations

from vlmr1.settings.base import Block, Count, Name, Rate


class Evaluate(Block):
    seed: int
    limit: Count | None  # items a source, the first of a seeded shuffle; null for all
    batch: Count
    max_new_tokens: Count
    temperature: Rate  # of the sampled column; the other is greedy


class Report(Block):
    pictures: Count  # hits and misses shown of each model


class Publish(Block):
    name: Name
    store: str  # a folder, file:///… or s3://bucket/prefix
