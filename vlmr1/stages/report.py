"""report: what the run showed. Run: `python -m vlmr1.stages.report`.

Tracked, in reports/run: facts.json and the pictures. Beside it, untracked because of the times and the machine in
them: reports/report.html and reports/report.md.
"""

from __future__ import annotations

from pathlib import Path

from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.measures import EXPLAINED, MEASURES
from vlmr1.policies import LABELS
from vlmr1.report import figures, page
from vlmr1.report.examples import examples
from vlmr1.report.facts import differences, sentences, title_of
from vlmr1.report.official import official
from vlmr1.sample import load_sources, read_jsonl
from vlmr1.settings import PARAMS, Asking, Params
from vlmr1.stages import CONVERTED, read_json, run_stage


def main(params: Params) -> None:
    sources = {source.name: source for source in load_sources(CONVERTED, "evaluate")}
    metrics = {policy: read_json(Path("predictions") / policy / "figures.json") for policy in LABELS}
    asking = read_json(Path("predictions/grpo/settings.json"))
    predictions = {
        policy: {
            name: {way: read_jsonl(Path("predictions") / policy / f"{name}-{way}.jsonl") for way in by_way}
            for name, by_way in metrics[policy].items()
        }
        for policy in LABELS
    }
    training = read_json(Path("metrics/grpo.json"))
    index = {k: v for path in sorted(CONVERTED.glob("*/sources.json")) for k, v in read_json(path).items()}
    found, title = differences(predictions), title_of(metrics)
    judged = {f["judged"] for by_way in metrics["base"].values() for f in by_way.values()}
    with whole_folder(page.RUN) as folder:
        facts = {
            "labels": LABELS,
            "measures": {name: measure.title for name, measure in MEASURES.items()},
            "title": title,
            "explained": [EXPLAINED[key] for key in sorted(judged)],
            "ways": list(dict.fromkeys(way for by_way in metrics["base"].values() for way in by_way)),
            "asking": {key: asking[key] for key in ("protocol", *Asking.model_fields)},
            "sentences": sentences(found, training, index, metrics),
            "table": metrics,
            "differences": found,
            "official": {policy: official(params.data, Path("predictions") / policy) for policy in LABELS},
            "training": training,
        }
        write_json(folder / "facts.json", rounded(facts))
        figures.accuracy(metrics, title, folder / "accuracy.png")
        rows = read_jsonl(Path("logs/grpo/metrics.jsonl"))
        figures.curves(rows, figures.reward_curves(rows), "reward", folder / "reward.png")
        figures.curves(rows, {"completion_length": "length"}, "completion length, tokens", folder / "length.png")
        for policy in LABELS:
            greedy = {name: by_way["greedy"] for name, by_way in predictions[policy].items()}
            examples(greedy, sources, params.report.pictures, folder / f"examples-{policy}.png")
    page.record(PARAMS.read_text(encoding="utf-8"))
    page.render()
    print(f"report: {page.HTML}")


if __name__ == "__main__":
    run_stage("report", main)
