"""The embedded data on disk: a folder a world, each in a public format.

Same seed, same bytes. No picture stands twice, neither in a split nor across splits or worlds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlmr1.settings import Objects, World
from vlmr1.world import gui, math, ovd, rec
from vlmr1.world.draw import Seen
from vlmr1.world.scenes import COLOURS, SIDE


def check_world(settings: World) -> None:
    """Refuse what cannot be drawn. Raises ValueError naming the key."""
    for world in ("rec", "ovd"):
        part = getattr(settings, world)
        for name, split in part.splits.items() if part else ():
            _check_objects(f"params.yaml: world.{world}.splits.{name}", split)


def _check_objects(where: str, split: Objects) -> None:
    unknown = sorted(set(split.colours) - set(COLOURS))
    if unknown:
        raise ValueError(f"{where}.colours: {unknown[0]} is none of {', '.join(COLOURS)}")
    if split.sides[1] > SIDE:
        raise ValueError(f"{where}.sides: pictures are {SIDE} pixels wide")


def lists(settings: World) -> dict[tuple[str, str | None], int]:
    """Rows of every list that is written: by its place below the world's folder, and its split where it has several."""
    found: dict[tuple[str, str | None], int] = {}
    for world, part in (
        ("rec", settings.rec and rec.lists(settings.rec)),
        ("ovd", settings.ovd and ovd.lists(settings.ovd)),
        ("math", settings.math and math.lists(settings.math)),
        ("gui", settings.gui and gui.lists(settings.gui)),
    ):
        found |= {(f"{world}/{name}", split): rows for (name, split), rows in (part or {}).items()}
    return found


def write_world(settings: World, folder: Path, told: Callable[[int], object]) -> dict[str, int]:
    """Draw every world below `folder`, telling how many rows more are done. Returns the rows of each list.

    Raises ValueError when a split's settings cannot give as many different pictures as it asks for.
    """
    check_world(settings)
    seen = Seen()  # one for all: rec and ovd draw the same things
    if settings.rec:
        rec.write_rec(settings.rec, settings.seed, folder / "rec", seen, told)
    if settings.ovd:
        ovd.write_ovd(settings.ovd, settings.seed, folder / "ovd", seen, told)
    if settings.math:
        math.write_math(settings.math, settings.seed, folder / "math", seen, told)
    if settings.gui:
        gui.write_gui(settings.gui, settings.seed, folder / "gui", seen, told)
    return {f"{name} {split}" if split else name: rows for (name, split), rows in lists(settings).items()}
