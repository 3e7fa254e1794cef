"""The `vlmr1` command: thin verbs over the package's own functions. Heavy imports happen inside the verbs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlmr1.errors import RETRY, transient
from vlmr1.release.commands import add_verbs
from vlmr1.stopping import INTERRUPTED, end_in_order


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="vlmr1", description="GRPO for vision-language models, as a reproducible pipeline."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    doctor = verbs.add_parser("doctor", help="check the machine, params.yaml and the data before anything long")
    doctor.add_argument("--faults", action="store_true", help="say only what is wrong, without waking torch")
    doctor.add_argument(
        "--plan", nargs="?", const="", metavar="RECIPE", help="memory a device and hours, of params.yaml or a recipe"
    )
    doctor.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="with --plan")
    doctor.add_argument("--memory", metavar="80GB", help="with --plan: of a device; exit 1 where the run does not fit")
    doctor.add_argument("--devices", type=int, metavar="N", help="with --plan: on one node (default: compute.launch)")
    doctor.add_argument(
        "--text", type=int, metavar="N", help="with --plan: tokens of a prompt besides its pictures (128)"
    )
    doctor.add_argument("--seconds-a-step", type=float, metavar="S", help="with --plan: measured, for the hours")
    doctor.set_defaults(run=_doctor)

    verbs.add_parser("summary", help="print the last run's table, its report and how to pull it").set_defaults(
        run=_summary
    )

    apply = verbs.add_parser("apply", help="lay a recipe over params.yaml")
    apply.add_argument("recipe", type=Path, help="e.g. recipes/smoke.yaml")
    apply.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as in dvc exp run")
    apply.set_defaults(run=_apply)

    add_verbs(verbs)

    verbs.add_parser("join", help="on another node: follow the pipeline's stages, one after another").set_defaults(
        run=_join
    )

    ask = verbs.add_parser("ask", help="ask a checkpoint about a picture")
    ask.add_argument("checkpoint", type=Path, help="a pulled folder, or models/grpo")
    ask.add_argument("picture", type=Path)
    ask.add_argument("expression", help='e.g. "the red square"; of ovd names, of math a question')
    ask.add_argument("--task", choices=["rec", "ovd", "math"], default="rec", help="default: rec, where something is")
    ask.add_argument("--draw", type=Path, metavar="FILE", help="save the picture with the answered box")
    ask.set_defaults(run=_ask)

    train = verbs.add_parser("train", help="train without the pipeline").add_subparsers(required=True, metavar="METHOD")
    grpo = train.add_parser("grpo", help="reinforce a checkpoint on JSONL lists")
    grpo.add_argument("--model", type=Path, required=True, metavar="DIR", help="a checkpoint folder")
    grpo.add_argument("--data", required=True, metavar="A.jsonl:B.jsonl", help="training lists, joined by colons")
    grpo.add_argument("--images", required=True, metavar="DIR:DIR", help="their picture folders")
    grpo.add_argument("--reward-method", metavar="NAME:NAME", help="accuracy rewards of rows that name none")
    grpo.add_argument("--output", type=Path, required=True, metavar="DIR")
    grpo.add_argument(
        "-S",
        "--set-param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="e.g. steps=200; vLLM samples with rollout.engine=vllm 'rollout.servers=[http://localhost:8000/v1]'"
        " (docs/serving.md), each behind an -S of its own",
    )
    grpo.set_defaults(run=_train, goes_on=True)

    convert = verbs.add_parser("convert", help="any public list of annotations to the original project's JSONL")
    convert.add_argument("--source", required=True, metavar="NAME", help="its format; a wrong one lists them all")
    convert.add_argument("--annotations", required=True, metavar="A:B", help="lists of that format, joined by colons")
    convert.add_argument("--images", required=True, metavar="DIR:DIR", help="their picture folders")
    convert.add_argument("--output", type=Path, required=True, metavar="OUT.jsonl")
    convert.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="e.g. split=val")
    convert.add_argument("--store-pictures", type=Path, metavar="DIR", help="store the pictures there, shrunk")
    convert.add_argument("--max-pixels", type=int, metavar="N", help="of a stored picture (default: 401408)")
    convert.set_defaults(run=_convert)

    from vlmr1.evaluate import add_evaluate
    from vlmr1.playground.command import add_playground
    from vlmr1.serve import add_serve
    from vlmr1.serving.bench_verb import add_bench

    add_evaluate(verbs)
    add_playground(verbs)

    reward = verbs.add_parser("reward", help="score completions from a file with a reward, and say why")
    reward.add_argument("name", metavar="NAME", help="e.g. iou, odLength, format, mcq, or package.module:function")
    reward.add_argument("--input", type=Path, required=True, metavar="JSONL", help="rows of completion and solution")
    reward.add_argument("--output", type=Path, required=True, metavar="JSONL")
    reward.set_defaults(run=_reward)

    score = verbs.add_parser("score", help="a benchmark's official figures from files, without a model")
    score.add_argument(
        "benchmark", metavar="BENCHMARK", help="e.g. rec, ovdeval, mathvista; a wrong one lists them all"
    )
    score.add_argument(
        "--annotations", type=Path, required=True, metavar="A", help="the benchmark's own file or folder"
    )
    score.add_argument("--predictions", type=Path, required=True, metavar="P", help="a model's file or folder")
    score.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the result goes")
    score.add_argument(
        "--against", type=Path, metavar="P2", help="another model's predictions: is the difference noise?"
    )
    score.add_argument("--scenario", choices=["intra", "inter"], help="of d3")
    score.add_argument("--protocol", choices=["paper"], help="of rec: its items alone, the first 2,000 by seed 42")
    score.add_argument("--judge", metavar="URL", help="an OpenAI-compatible server for what no rule can tell")
    score.add_argument("--judge-model", metavar="NAME", help="its model")
    score.set_defaults(run=_score)

    add_serve(verbs)
    add_bench(verbs)

    merge = verbs.add_parser("merge", help="make one checkpoint of a base and an adapter")
    merge.add_argument("adapter", type=Path, help="a folder with adapter_model.safetensors")
    merge.add_argument("--base", type=Path, metavar="DIR", help="the base (default: where the adapter says)")
    merge.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    merge.set_defaults(run=_merge)

    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ValueError, OSError, FloatingPointError) as error:  # a picture that does not open is an OSError
        if not transient(error):
            sys.exit(f"vlmr1 {chosen.verb}: {error}")
        print(f"vlmr1 {chosen.verb}: {error}", file=sys.stderr, flush=True)
        sys.exit(RETRY)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on" if hasattr(chosen, "goes_on") else ""
        print(f"vlmr1 {chosen.verb}: stopped{goes_on}", file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)


def _doctor(chosen: argparse.Namespace) -> None:
    if chosen.plan is not None:
        _plan(chosen)
        return
    idle = [
        n for n in ("set_param", "memory", "devices", "text", "seconds_a_step") if getattr(chosen, n) not in (None, [])
    ]
    if idle:
        raise ValueError(f"--{idle[0].replace('_', '-')}: belongs to --plan; add it, or leave this out")
    from vlmr1.doctor import examine

    findings = examine(wake_torch=not chosen.faults)
    for finding in findings:
        if not (finding.good and chosen.faults):
            print(f"{'ok   ' if finding.good else 'FAULT'}  {finding.what}: {finding.says}")
    faults = sum(not finding.good for finding in findings)
    if faults:
        sys.exit(f"vlmr1 doctor: {faults} to mend before a run")


def _plan(chosen: argparse.Namespace) -> None:
    from vlmr1.plan import Asked, bytes_of, params_with, plan_of, say

    memory = chosen.memory and bytes_of(chosen.memory)
    asked = Asked(memory, chosen.devices, chosen.text, chosen.seconds_a_step)
    params = params_with(Path(chosen.plan) if chosen.plan else None, chosen.set_param)
    said, fits = say(plan_of(params, asked), asked)
    print(said)
    if not fits:
        sys.exit(1)


def _summary(chosen: argparse.Namespace) -> None:
    from vlmr1.report.summary import say

    say()


def _apply(chosen: argparse.Namespace) -> None:
    from vlmr1.recipes import apply

    changed = apply(chosen.recipe, chosen.set_param)
    print("\n".join(changed) or "nothing to change")
    print("params.yaml changed; `git checkout params.yaml` brings the default run back, `dvc repro` runs this one")


def _ask(chosen: argparse.Namespace) -> None:
    import vlmr1.stages  # noqa: F401  (quiet libraries, one thread)
    from vlmr1.ask import ask, draw, said

    completion, answer = ask(chosen.checkpoint, chosen.picture, chosen.expression, chosen.task)
    print(completion, *said(answer, chosen.task), sep="\n")
    if chosen.draw is not None:
        draw(chosen.picture, answer, chosen.draw)


def _join(_: argparse.Namespace) -> None:
    from vlmr1.joining import join

    join()


def _train(chosen: argparse.Namespace) -> None:
    import vlmr1.stages  # noqa: F401  (quiet libraries, one thread)
    from vlmr1.launch import is_first, leave, start_processes
    from vlmr1.provenance import peak_memory
    from vlmr1.train import defaults, lists, load_jsonl, train_grpo

    settings = defaults(chosen.set_param)
    sources = [load_jsonl(*one) for one in lists(chosen.data, chosen.images, chosen.reward_method)]
    weighed = settings.grpo.rewards
    idle = [name for name in (chosen.reward_method or "").split(":") if name and not {"accuracy", name} & set(weighed)]
    if idle:
        raise ValueError(
            f"--reward-method: without accuracy among grpo.rewards {idle[0]} rewards nothing; weigh it there, e.g."
            " -S rewards={accuracy: 1.0, format: 1.0}"
        )
    start_processes(settings.compute, "train", "vlmr1.cli", sys.argv[1:])
    end_in_order()  # so that nothing of it stays on servers
    policy = train_grpo(chosen.model, sources, settings, chosen.output)
    leave()
    if is_first():
        print(f"the policy is in {policy}; most memory {peak_memory()}")


def _convert(chosen: argparse.Namespace) -> None:
    from vlmr1.convert import convert, formats

    if chosen.source not in formats():
        raise ValueError(f"--source {chosen.source}: no such format; one of {', '.join(formats())}")
    lists, folders = chosen.annotations.split(":"), chosen.images.split(":")
    if len(folders) == 1:
        folders *= len(lists)
    if len(lists) != len(folders):
        raise ValueError(
            f"--annotations, --images: {len(lists)} and {len(folders)} entries; give as many of each, or one"
        )
    pairs = [(Path(a), Path(b)) for a, b in zip(lists, folders, strict=True)]
    done = convert(chosen.source, pairs, chosen.output, chosen.set_param, chosen.store_pictures, chosen.max_pixels)
    print("\n".join((*done.notes, f"{done.samples} samples in {chosen.output}")))


def _reward(chosen: argparse.Namespace) -> None:
    from vlmr1.scoring import score_rows, summary

    print(summary(chosen.name, score_rows(chosen.name, chosen.input, chosen.output)))


def _score(chosen: argparse.Namespace) -> None:
    from vlmr1.evaluation.score import Choices, score, table
    from vlmr1.rewards.judge import judge_at

    if (chosen.judge is None) != (chosen.judge_model is None):
        raise ValueError("--judge and --judge-model belong together: the server's address and its model's name")
    judge = None if chosen.judge is None else judge_at(chosen.judge, chosen.judge_model, "--judge, --judge-model")
    choices = Choices(chosen.scenario, judge, chosen.protocol)
    result = score(
        chosen.benchmark, chosen.annotations, chosen.predictions, choices, chosen.json, against=chosen.against
    )
    print(table(result))
    print(f"the result is in {chosen.json}")


def _merge(chosen: argparse.Namespace) -> None:
    import vlmr1.stages  # noqa: F401
    from vlmr1.adapters import merge

    merge(chosen.adapter, chosen.base, chosen.output)
    print(f"the merged checkpoint is in {chosen.output}")


if __name__ == "__main__":
    main()
