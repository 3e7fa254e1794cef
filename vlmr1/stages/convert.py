"""convert: every source to the original project's JSONL, one file a source. Run: `python -m vlmr1.stages.convert`.

data/converted/ROLE holds the sources of a role: NAME.jsonl each, sources.json (where their pictures are, how many rows)
and pictures.json (the sha256 of every picture they name). A stage depends on the roles it reads, so that another
evaluation source trains nothing anew. Refused rows stay out. Pictures are read where they lie, or with
`convert.store_pictures` stored again, shrunk to `convert.max_pixels` with their boxes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from vlmr1.conversion import Pictures, by_source, samples
from vlmr1.files import whole_folder, write_json
from vlmr1.progress import counted, progress
from vlmr1.sample import read_jsonl, to_json, write_jsonl
from vlmr1.settings import Params
from vlmr1.settings.sources import Role
from vlmr1.sources import read_source
from vlmr1.stages import CONVERTED, REFUSED, run_stage


def main(params: Params) -> None:
    refused = by_source(read_jsonl(REFUSED))
    root, chosen = Path(params.data.root), params.convert
    total = 0
    with whole_folder(CONVERTED) as folder:
        for role in get_args(Role):
            index: dict[str, Any] = {}
            hashes: dict[str, dict[str, str]] = {}
            (folder / role).mkdir()
            for name, spec in params.data.sources.items():
                if spec.role != role:
                    continue
                copies = folder / role / "images" / name if chosen.store_pictures else None
                pictures = Pictures(root / spec.images, copies, chosen.max_pixels)
                out = refused.get(name, frozenset())
                split = getattr(spec, "split", name)
                with progress(f"converting {name}", None) as bar:
                    made = samples(counted(read_source(spec, root), bar), out, pictures, name, split)
                    count = write_jsonl(folder / role / f"{name}.jsonl", map(to_json, made))
                if not count:
                    raise ValueError(f"data.sources.{name}: every row was refused; see {REFUSED.parent}/validation.md")
                where = CONVERTED / role / "images" / name if chosen.store_pictures else root / spec.images
                index[name] = {"role": role, "images": where.as_posix(), "samples": count, "refused": len(out)}
                hashes[name] = pictures.hashes()
                total += count
            write_json(folder / role / "sources.json", index)
            write_json(folder / role / "pictures.json", hashes)
            print(
                f"convert: {role}: " + (", ".join(f"{name} {one['samples']}" for name, one in index.items()) or "none")
            )
    write_json(Path("metrics/convert.json"), {"samples": total})


if __name__ == "__main__":
    run_stage("convert", main)
