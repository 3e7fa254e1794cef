"""report: what the run showed. Run: `python -m vlmr1.stages.report`.

Tracked, in reports/run: facts.json and the pictures. Beside it, untracked because of the times and the machine in
them: reports/report.html and reports/report.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmr1.boxes import Box
from vlmr1.files import rounded, whole_folder, write_json
from vlmr1.policies import LABELS
from vlmr1.report import figures, page
from vlmr1.report.facts import MEASURES, WAYS, differences, sentences
from vlmr1.sample import load_sources, read_jsonl
from vlmr1.settings import PARAMS, Params
from vlmr1.stages import CONVERTED, read_json, run_stage
from vlmr1.tasks import TASKS


def main(params: Params) -> None:
    sources = {source.name: source for source in load_sources(CONVERTED, "evaluate")}
    samples = {name: {s.id: s for s in source.samples} for name, source in sources.items()}
    metrics = {policy: read_json(Path("predictions") / policy / "figures.json") for policy in LABELS}
    predictions = {
        policy: {
            name: {way: read_jsonl(Path("predictions") / policy / f"{name}-{way}.jsonl") for way in WAYS}
            for name in sources
        }
        for policy in LABELS
    }
    training = read_json(Path("metrics/grpo.json"))
    index = {k: v for path in sorted(CONVERTED.glob("*/sources.json")) for k, v in read_json(path).items()}
    found = differences(predictions)

    def locate(name: str, prediction: Any) -> Path:
        return sources[name].picture(samples[name][prediction["index"]])

    def truth(name: str, prediction: Any) -> Box:
        sample = samples[name][prediction["index"]]
        return TASKS[sample.task].truth(sample)

    with whole_folder(page.RUN) as folder:
        facts = {
            "labels": LABELS,
            "measures": MEASURES,
            "temperature": params.evaluate.temperature,
            "sentences": sentences(found, training, index, metrics),
            "table": metrics,
            "differences": found,
            "training": training,
        }
        write_json(folder / "facts.json", rounded(facts))
        figures.accuracy(metrics, folder / "accuracy.png")
        rows = read_jsonl(Path("logs/grpo/metrics.jsonl"))
        parts = {"reward": "total", "rewards/accuracy": "accuracy", "rewards/format": "format"}
        figures.curves(rows, {k: v for k, v in parts.items() if k in rows[0]}, "reward", folder / "reward.png")
        figures.curves(rows, {"completion_length": "length"}, "completion length, tokens", folder / "length.png")
        for policy in LABELS:
            greedy = {name: by_way["greedy"] for name, by_way in predictions[policy].items()}
            figures.examples(greedy, locate, truth, params.report.pictures, folder / f"examples-{policy}.png")
    page.record(PARAMS.read_text(encoding="utf-8"))
    page.render()
    print(f"report: {page.HTML}")


if __name__ == "__main__":
    run_stage("report", main)
