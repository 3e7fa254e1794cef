"""How fast lists of annotations are validated and converted, as the pipeline's own stages do it, imports included.

    python -m benchmarks.data --rows 80000 160000 321327 --json docs/benchmarks/data.json
    python -m benchmarks.data --lists val.jsonl more.jsonl --json lists.json     # one expression a line

`--rows` draws synthetic RefCOCO lists (four sentences an object, sixteen a picture) in the published form; `--lists`
takes real ones. Annotation rules alone (`validate.decode: none`), since no pictures are there. Seconds are wall seconds
on an otherwise idle machine, with CPU seconds and the peak memory of all processes together beside them.
Left out on purpose: reading pictures, which depends on the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from vlmr1.recipes import apply

ROOT = Path(__file__).parent.parent
SIZE = (640, 480)
LOOK = 0.5  # seconds between two looks at a stage's memory
VAL = 1000  # rows of an evaluation list beside, which a run must have
OBJECTS, SENTENCES = 4, 4  # of a picture, of an object
WORDS = ("the", "left", "right", "man", "woman", "red", "dog", "cup", "behind", "near", "top", "of", "in", "white")


def draw(rows: int, folder: Path, split: str) -> None:
    """A RefCOCO list of so many sentences, with pictures of its own."""
    rng, refs, annotations, images = random.Random(split), [], [], []
    sentence = 0
    while sentence < rows:
        number = len(annotations)
        image = number // OBJECTS
        if image == len(images):
            name = f"COCO_{split}_{image:012d}.jpg"
            images.append({"id": image, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        x, y = rng.uniform(0, 400), rng.uniform(0, 300)
        box = [round(v, 2) for v in (x, y, rng.uniform(8, 640 - x), rng.uniform(8, 480 - y))]
        annotations.append({"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": 1.0, "iscrowd": 0})
        said = []
        for _ in range(min(SENTENCES, rows - sentence)):
            text = " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))
            said.append({"sent_id": sentence, "sent": text, "raw": text, "tokens": text.split()})
            sentence += 1
        ref = {"ref_id": number, "ann_id": number, "image_id": image, "category_id": 1, "split": split}
        refs.append(ref | {"file_name": images[-1]["file_name"], "sent_ids": [], "sentences": said})
    folder.mkdir(parents=True)
    (folder / "refs.json").write_text(json.dumps(refs))
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


def stage(name: str, project: Path) -> dict[str, float]:
    """Run one stage in a project; its wall and CPU seconds, and the most memory that all its processes held together.

    Exits with its words where it fails.
    """
    command = [sys.executable, "-m", f"vlmr1.stages.{name}"]
    start, looked, peak = time.monotonic(), time.monotonic(), 0
    with (project / f"{name}.log").open("w") as log:
        there = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(command, cwd=project, env=there, stdout=log, stderr=log)
        process = psutil.Process(child.pid)
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() >= looked + LOOK:  # seldom: looking stops the looked at
                peak, looked = max(peak, _held(process)), time.monotonic()
            time.sleep(0.01)
    if status:
        sys.exit(f"{name} failed; it said:\n{(project / f'{name}.log').read_text()[-2000:]}")
    wall = time.monotonic() - start
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak_mb": peak / 2**20}


def _held(process: psutil.Process) -> int:
    """Bytes of a process and its children, pages that they share counted once."""
    held = 0
    for one in (process, *_children(process)):
        with contextlib.suppress(psutil.Error):  # it has just ended
            held += one.memory_full_info().pss
    return held


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def measure(sources: dict[str, Any], project: Path) -> dict[str, Any]:
    """Validate and convert the sources below project/raw."""
    shutil.copy(ROOT / "params.yaml", project / "params.yaml")
    base = {"pretrained": {"model": "any", "revision": None}, "tiny": None, "training": None}  # wants no warmup source
    overlay = {"world": None, "warmup": base, "data": {"root": "raw", "sources": sources}}
    overlay |= {"validate": {"decode": "none", "on_failure": "skip"}}
    (project / "over.json").write_text(json.dumps(overlay))
    here = Path.cwd()
    os.chdir(project)
    try:
        apply(Path("over.json"), [])
        found = {name: stage(name, project) for name in ("validate", "convert")}
        rows = json.loads(Path("metrics/validate.json").read_text())
        count = json.loads(Path("metrics/convert.json").read_text())["samples"]
    finally:
        os.chdir(here)
    total = sum(one["wall"] for one in found.values())
    peak = max(one["peak_mb"] for one in found.values())
    print(f"{rows['rows_looked_at']} rows, {count} samples: {total:.1f} s, peak {peak:.0f} MB", flush=True)
    return {"rows": rows, "samples": count, "seconds": total, "peak_mb": peak, "stages": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--lists", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path, required=True)
    chosen = parser.parse_args()
    runs = []
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory(prefix="data-") as folder:
            sources = {}
            for split, role, count in (("train", "train", rows), ("val", "evaluate", VAL)):
                draw(count, Path(folder) / "raw" / split, split)
                one = {"format": "refcoco", "annotations": f"{split}/refs.json", "images": "images", "split": split}
                sources[split] = one | {"role": role}
            runs.append(measure(sources, Path(folder)))
    if chosen.lists:
        with tempfile.TemporaryDirectory(prefix="data-") as folder:
            draw(
                1, Path(folder) / "raw/train", "train"
            )  # a run must have a training row, and these lists are for tests
            one = {"format": "refcoco", "annotations": "train/refs.json", "images": "images", "split": "train"}
            sources = {"train": one | {"role": "train"}}
            for n, path in enumerate(chosen.lists):
                shutil.copy(path, Path(folder) / "raw" / path.name)
                one = {"format": "rec_jsonl", "annotations": path.name, "images": "images", "role": "evaluate"}
                sources[f"list{n}"] = one
            runs.append(measure(sources, Path(folder)))
    chosen.json.write_text(json.dumps({"command": "python -m benchmarks.data", "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
