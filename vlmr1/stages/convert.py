"""convert: every source to the original project's JSONL, one file a source. Run: `python -m vlmr1.stages.convert`.

Refused rows stay out. A source whose pictures all fit `convert.max_pixels` is referenced where it is; of any other,
every picture is stored again below data/converted/images, large ones shrunk with their boxes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

from vlmr1.boxes import Box, Size, rescale
from vlmr1.files import inside, whole_folder, write_json
from vlmr1.progress import progress
from vlmr1.rows import Row
from vlmr1.sample import Sample, read_jsonl, to_json, write_jsonl
from vlmr1.settings import Params, SourceSpec
from vlmr1.sources import read_source
from vlmr1.stages import CONVERTED, REFUSED, run_stage
from vlmr1.tasks import rec


def main(params: Params) -> None:
    refused = {(r["source"], r["row"]) for r in read_jsonl(REFUSED)}
    index, counts = {}, {}
    with whole_folder(CONVERTED) as folder:
        for name, spec in params.data.sources.items():
            rows = list(read_source(spec, Path(params.data.root)))
            kept = [row for row in rows if (name, row.row) not in refused]
            if not kept:
                raise ValueError(f"data.sources.{name}: every row was refused; see reports/validation/validation.md")
            pictures, samples = _convert(name, spec, kept, params, folder)
            write_jsonl(folder / f"{name}.jsonl", map(to_json, samples))
            counts[name] = {"rows": len(rows), "refused": len(rows) - len(kept), "samples": len(samples)}
            index[name] = {"role": spec.role, "images": pictures.as_posix(), **counts[name]}
        write_json(folder / "sources.json", index)
    write_json(Path("metrics/convert.json"), {"samples": sum(count["samples"] for count in counts.values())})
    print("convert: " + ", ".join(f"{name} {count['samples']}" for name, count in counts.items()))


def _convert(name: str, spec: SourceSpec, rows: list[Row], params: Params, folder: Path) -> tuple[Path, list[Sample]]:
    """The samples of a source and the folder its pictures are read from."""
    raw = Path(params.data.root) / spec.images
    sizes: dict[str, Size] = {}
    for row in rows:
        image = row.images[0]
        if image not in sizes:
            with Image.open(inside(raw, image)) as picture:
                sizes[image] = picture.size
    fits = {image: _fitting(size, params.convert.max_pixels) for image, size in sizes.items()}
    stored = raw
    if fits != sizes:
        stored = CONVERTED / "images" / name
        with progress(f"storing pictures of {name}", len(fits)) as bar:
            for image, size in fits.items():
                _store(inside(raw, image), inside(folder / "images" / name, image), size)
                bar.update(1)
    samples = []
    for row in rows:
        image = row.images[0]
        box = rescale(row.boxes[0], sizes[image], fits[image])
        solution = json.dumps([round(v, 2) for v in _clipped(box, fits[image])])
        samples.append(
            Sample(
                id=row.row,
                images=row.images,
                problem=rec.problem(row.text.strip()),
                solution=solution,
                task="rec",
                reward="iou",
                source=name,
                split=getattr(spec, "split", name),
                sizes=(fits[image],),
            )
        )
    return stored, samples


def _fitting(size: Size, max_pixels: int) -> Size:
    """The size itself, or the largest of the same shape that has at most that many pixels."""
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = (max_pixels / (width * height)) ** 0.5
    return max(1, int(width * scale)), max(1, int(height * scale))


def _store(old: Path, new: Path, size: Size) -> None:
    """Put a picture into the converted set, shrunk if it must be."""
    new.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(old) as picture:
        if picture.size == size:
            shutil.copyfile(old, new)
        else:
            picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(new)


def _clipped(box: Box, size: Size) -> Box:
    """The part of a box inside its picture; validation lets it pass the border by half a pixel."""
    return (max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1]))


if __name__ == "__main__":
    run_stage("convert", main)
