"""The verb `vlmr1 evaluate`: its options, and what it prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_evaluate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command its verb."""
    parser = verbs.add_parser("evaluate", help="ask a checkpoint the questions of JSONL lists, and judge its answers")
    parser.add_argument("checkpoint", type=Path, help="a pulled folder, models/grpo, or one of your own")
    parser.add_argument("--data", required=True, metavar="A.jsonl:B.jsonl", help="lists, joined by colons")
    parser.add_argument("--images", required=True, metavar="DIR:DIR", help="their picture folders")
    parser.add_argument("--reward-method", metavar="NAME:NAME", help="accuracy rewards of rows that name none")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "-S",
        "--set-param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="e.g. limit=100, protocol=paper; servers answer with engine=http 'servers=[http://localhost:8000/v1]'"
        " (docs/serving.md), each behind an -S of its own",
    )
    parser.set_defaults(run=_evaluate, goes_on=True)


def _evaluate(chosen: argparse.Namespace) -> None:
    import vlmr1.stages  # noqa: F401  (quiet libraries, one thread)
    from vlmr1.evaluation.alone import defaults, evaluate, load, table
    from vlmr1.launch import leave, start_processes
    from vlmr1.train import lists

    settings = defaults(chosen.set_param)
    sources = load(lists(chosen.data, chosen.images, chosen.reward_method))
    if settings.evaluate.own:
        start_processes(settings.compute, "evaluate", "vlmr1.cli", sys.argv[1:])
    figures = evaluate(chosen.checkpoint, sources, settings, chosen.output)
    leave()
    if figures is not None:
        print(table(figures))
        print(f"predictions and figures.json are in {chosen.output}")
