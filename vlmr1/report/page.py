"""The page: tracked facts and pictures joined with commit, machine and times, as one HTML file and its Markdown twin.

Everything is inside the HTML: it opens offline, from anywhere, and asks nobody for anything.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from vlmr1.files import sha256, write_atomically, write_json
from vlmr1.measures import EXTRAS, TITLES
from vlmr1.provenance import commit, folder_digest, machine, package_versions

RUN = Path("reports/run")  # what the report stage tracks
HTML, MARKDOWN = Path("reports/report.html"), Path("reports/report.md")
STAGES = Path("work/records")  # a file a stage, of its times
RECORD = STAGES / "run.json"
PUBLISHED = Path("reports/published.json")
FOLDERS = ("data/converted", "models/base", "models/sft-samples", "models/sft-compute", "models/grpo")


def table_that_matters(facts: dict[str, Any], way: str = "greedy") -> list[list[str]]:
    """What every policy is judged by on every source, with its interval; the first row is the head.

    Beside it what tells more: the mean IoU of boxes, the set's AP of detections, of words what one constant answer
    would get, and the worst case where items come in groups.
    """
    rows = [["source", "n", *[facts["labels"][policy] for policy in facts["table"]]]]
    for source, ways in facts["table"]["base"].items():
        cells = [_cell(figures[source][way]) for figures in facts["table"].values()]
        constant = f" (a constant answer {ways[way]['majority']:.3f})" if "majority" in ways[way] else ""
        rows.append([source + constant, str(ways[way]["n"]), *cells])
    return rows


def _cell(f: dict[str, Any]) -> str:
    more = [f"{label} {f[key]:.3f}" for key, label in EXTRAS[f["judged"]].items() if key in f]
    more += [f"worst case {f['groups']['worst_case']:.3f}"] if "groups" in f else []
    more += [f"best of {f['samples']} {f['pass_at_k']:.3f}"] if "samples" in f else []  # pass@k, of a proportion
    return " ".join([_interval(f, f["judged"]), *more])


def _interval(f: dict[str, Any], key: str, digits: int = 3) -> str:
    return f"{f[key]:.{digits}f} [{f[f'{key}_low']:.{digits}f}, {f[f'{key}_high']:.{digits}f}]"


def details(facts: dict[str, Any]) -> list[list[str]]:
    """Every figure of every policy, source and way, with its interval."""
    everything = [f for by_source in facts["table"].values() for ways in by_source.values() for f in ways.values()]
    shown = {key: title for key, title in TITLES.items() if any(key in f for f in everything)}
    shown |= {"parse_failure_rate": "parse failures", "answer_tokens": "answer tokens"}
    rows = [["policy", "source", "decoding", "n", *shown.values()]]
    for policy, by_source in facts["table"].items():
        for source, by_way in by_source.items():
            for way, f in by_way.items():
                cells = [_interval(f, key, 1 if key == "answer_tokens" else 3) if key in f else "" for key in shown]
                rows.append([facts["labels"][policy], source, way, str(f["n"]), *cells])
    return rows


def parts(facts: dict[str, Any], way: str = "greedy") -> list[list[str]]:
    """What the sources are judged by, told apart by kind, target, truth and worst case of a group."""
    rows = [["source", "part", "", "n", *[facts["labels"][policy] for policy in facts["table"]]]]
    for source, ways in facts["table"]["base"].items():
        key, by_policy = ways[way]["judged"], [figures[source][way] for figures in facts["table"].values()]
        for part in ("kinds", "targets", "truths"):
            for name, f in ways[way].get(part, {}).items():
                cells = [_interval(figures[part][name], key) for figures in by_policy]
                rows.append([source, part, name, str(f["n"]), *cells])
        if "groups" in ways[way]:
            cells = [_interval(figures["groups"], "worst_case") for figures in by_policy]
            rows.append([source, "groups", "worst case", str(ways[way]["groups"]["n"]), *cells])
    return rows


def official_table(labels: dict[str, str], by_policy: dict[str, dict[str, dict[str, Any]]]) -> list[list[str]]:
    """The main figure of every source and policy with its interval; the first row is the head."""
    rows = [["source", "benchmark", "figure", "n", *[labels[policy] for policy in by_policy]]]
    for source, first in next(iter(by_policy.values())).items():
        each = [sources[source] for sources in by_policy.values()]
        if any("unscored" in one for one in each):
            why = next(one["unscored"] for one in each if "unscored" in one)
            rows.append([source, first["benchmark"], f"not scored: {why}", "", *[""] * len(each)])
        else:
            n = f"{first['n']} of {first['of']}" if "of" in first and first["of"] != first["n"] else str(first["n"])
            rows.append([source, first["benchmark"], first["main"], n, *[_main(one) for one in each]])
    return rows


def _main(figures: dict[str, Any]) -> str:
    main = figures["main"]
    low, high = figures.get(f"{main}_low"), figures.get(f"{main}_high")
    bounds = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{figures[main]:.3f}{bounds}"


def record(params: str) -> None:
    """Note, beside the tracked facts, what differs by nature: commit, versions, machine, and the params file's text."""
    head, changed = commit()
    noted = {
        "facts": sha256(RUN / "facts.json"),
        "commit": head,
        "dirty": bool(changed),
        "machine": machine(),
        "packages": package_versions(),
        "params": params,
        "folders": {folder: folder_digest(Path(folder)) for folder in FOLDERS},
    }
    write_json(RECORD, noted)


def render() -> None:
    """Write both pages from what the stages left. Cheap, so that every run of the pipeline may end with it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    facts = _read(RUN / "facts.json")
    pictures = {path.stem: path for path in sorted(RUN.glob("*.png"))}
    noted = _read(RECORD) if RECORD.is_file() else {}
    if noted.get("facts") != sha256(RUN / "facts.json"):
        noted = {}  # of another run, whose results were here before these came from DVC's cache
    records = _stage_records()
    context = {
        "facts": facts,
        "table": table_that_matters(facts),
        "sampled": table_that_matters(facts, "sampled") if "sampled" in facts["ways"] else None,
        "details": details(facts),
        "parts": parts(facts),
        "official": official_table(facts["labels"], facts["official"]),
        "noted": noted,
        "records": records,
        "cost": _cost({r["stage"]: r["cpu_seconds"] for r in records if not r["continued"]}),
        "published": _read(PUBLISHED) if PUBLISHED.is_file() else None,
    }
    rooms = Environment(
        loader=PackageLoader("vlmr1", "report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    embedded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()}
    write_atomically(HTML, rooms.get_template("page.html").render(**context, pictures=embedded))
    rooms.autoescape = False
    linked = {name: path.relative_to(MARKDOWN.parent).as_posix() for name, path in pictures.items()}
    write_atomically(MARKDOWN, rooms.get_template("page.md").render(**context, pictures=linked))


def _stage_records() -> list[dict[str, Any]]:
    """Times of the stages whose figures are the ones here; a stage restored from DVC's cache has none."""
    found = []
    for path in STAGES.glob("*.json"):
        kept, metrics = _read(path), Path("metrics") / path.name
        if path != RECORD and kept["made"] == (sha256(metrics) if metrics.is_file() else None):
            found.append(kept)
    return sorted(found, key=lambda kept: kept["started"])


def _cost(seconds: dict[str, float]) -> str | None:
    """Whether "equal compute" was equal, in processor time; None where one of the two was not timed from its start."""
    if not {"grpo", "sft-compute"} <= seconds.keys():
        return None
    share = seconds["sft-compute"] / seconds["grpo"]
    verdict = "about equal" if 0.8 <= share <= 1.25 else "NOT equal: change sft.compute_ratio"
    return (
        f"SFT, equal compute took {seconds['sft-compute']:.0f} CPU-seconds, {share:.2f} times GRPO's"
        f" {seconds['grpo']:.0f}: {verdict}. (On an accelerator these seconds do not tell.)"
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
