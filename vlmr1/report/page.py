"""The page: tracked facts and pictures joined with commit, machine and times, as one HTML file and its Markdown twin.

Everything is inside the HTML: it opens offline, from anywhere, and asks nobody for anything.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from vlmr1.files import write_atomically
from vlmr1.provenance import commit, machine, package_versions
from vlmr1.settings import PARAMS

RUN = Path("reports/run")  # what the report stage tracks
HTML, MARKDOWN = Path("reports/report.html"), Path("reports/report.md")
LOCK = Path("dvc.lock")


def table_that_matters(facts: dict[str, Any], way: str = "greedy") -> list[list[str]]:
    """Acc@0.5 [interval] and mean IoU of every policy on every source; the first row is the head."""
    head = ["source", "n", *[facts["labels"][policy] for policy in facts["table"]]]
    rows = [head]
    for source in next(iter(facts["table"].values())):
        row = [source, str(facts["table"]["base"][source][way]["n"])]
        for figures in facts["table"].values():
            f = figures[source][way]
            row.append(f"{f['acc_0.5']:.3f} [{f['acc_0.5_low']:.3f}, {f['acc_0.5_high']:.3f}]  {f['mean_iou']:.3f}")
        rows.append(row)
    return rows


def details(facts: dict[str, Any]) -> list[list[str]]:
    """Every figure of every policy, source and way, with its interval."""
    rows = [["policy", "source", "decoding", "n", "Acc@0.5", "mean IoU", "parse failures", "answer tokens"]]
    for policy, by_source in facts["table"].items():
        for source, by_way in by_source.items():
            for way, f in by_way.items():
                cells = [
                    f"{f[key]:.{d}f} [{f[key + '_low']:.{d}f}, {f[key + '_high']:.{d}f}]"
                    for key, d in (("acc_0.5", 3), ("mean_iou", 3), ("parse_failure_rate", 3), ("answer_tokens", 1))
                ]
                rows.append([facts["labels"][policy], source, way, str(f["n"]), *cells])
    return rows


def render() -> None:
    """Write both pages from what the stages left. Cheap, so that every run of the pipeline may end with it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    facts = json.loads((RUN / "facts.json").read_text(encoding="utf-8"))
    pictures = {path.stem: path for path in sorted(RUN.glob("*.png"))}
    head, dirty = commit()
    context = {
        "facts": facts,
        "table": table_that_matters(facts),
        "sampled": table_that_matters(facts, "sampled"),
        "details": details(facts),
        "commit": head or "not in a git repository",
        "dirty": dirty,
        "machine": machine(),
        "packages": package_versions(),
        "records": [json.loads(p.read_text()) for p in sorted(Path("work/records").glob("*.json"))],
        "data": _data_hashes(),
        "published": _read_or_none(Path("metrics/publish.json")),
        "params": PARAMS.read_text(encoding="utf-8"),
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


def _data_hashes() -> dict[str, str]:
    """What dvc.lock says of the data; empty for a run without DVC."""
    if not LOCK.is_file():
        return {}
    from vlmr1.settings import read_yaml

    outs = [out for stage in read_yaml(LOCK).get("stages", {}).values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith(("data/", "models/")) and "md5" in out}


def _read_or_none(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
