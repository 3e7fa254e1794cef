"""world: draw the embedded data set to data/world. Run: `python -m vlmr1.stages.world`.

With another `data.root` in params nothing is drawn, and a note says so.
"""

from __future__ import annotations

from pathlib import Path

from vlmr1.files import whole_folder
from vlmr1.progress import progress
from vlmr1.settings import WORLD_FOLDER, Params
from vlmr1.stages import run_stage
from vlmr1.world.dataset import lists, write_world


def main(params: Params) -> None:
    with whole_folder(Path(WORLD_FOLDER)) as folder:
        if params.world is None:
            (folder / "NOT_DRAWN.txt").write_text("data.root names another data set; the embedded one is not drawn.\n")
            print("world: data.root names another data set; nothing drawn")
            return
        with progress("drawing", sum(lists(params.world).values())) as bar:
            counts = write_world(params.world, folder, bar.update)
    print("world: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    run_stage("world", main)
