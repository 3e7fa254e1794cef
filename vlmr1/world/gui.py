"""GUI defects: two screens and the action between them, in the original project's multi-image JSONL.

    gui/SPLIT.jsonl     id, image [before, after], conversations; also kind, the sort of action
    gui/images/SPLIT/…  PNG

A pair is labelled by rule, from what can be seen: what was there, what was done, what came of it. Every pair also has
harmless changes, whatever its label, so that comparing pixels does not tell the labels apart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vlmr1.sample import write_jsonl
from vlmr1.settings import GuiSplit, GuiWorld
from vlmr1.world.draw import TIRED, Seen, Told, no_new_picture
from vlmr1.world.screens import KEYS, PAGES, Action, Screen, draw, drift, flip, situation, spoken, step

NO_DEFECT = "No Defect"
NO_RESPONSE = "Operation No Response"
KEYBOARD = "Virtual Keyboard Related Issue"
NAVIGATION = "Navigation Logic Error"
RESULT = "Unexpected Task Result"

ASKED = "The two screenshots were taken before and after this action:"
DEFECTS = (
    "Compare them and name the defect, if there is one.\n"
    f"- {NO_RESPONSE}: the app did nothing.\n"
    f"- {KEYBOARD}: the keyboard is missing, misplaced, unasked for, or writes something else.\n"
    f"- {NAVIGATION}: the app went to a wrong page.\n"
    f"- {RESULT}: the app did something else than was asked.\n"
    f"Answer with one of these names, or with {NO_DEFECT}."
)


@dataclass(frozen=True)
class Pair:
    before: Screen
    action: Action
    after: Screen
    label: str


def lists(settings: GuiWorld) -> dict[tuple[str, str | None], int]:
    """The list of every split, and its rows: one a pair."""
    return {(f"{name}.jsonl", None): split.pairs for name, split in settings.splits.items()}


def write_gui(settings: GuiWorld, seed: int, folder: Path, seen: Seen, told: Told) -> None:
    """Draw every split below `folder`, no picture that was `seen`.

    Raises ValueError where its actions cannot give enough different screens.
    """
    for split, wanted in settings.splits.items():
        (folder / "images" / split).mkdir(parents=True)
        rows = []
        for number, (pair, pictures) in enumerate(pairs(split, wanted, seed, seen)):
            names = [f"{split}/{number:05d}_{when}.png" for when in ("before", "after")]
            for name, picture in zip(names, pictures, strict=True):
                picture.save(folder / "images" / name)
            rows.append(_row(number, names, pair))
            told(1)
        write_jsonl(folder / f"{split}.jsonl", rows)


def pairs(
    split: str, wanted: GuiSplit, seed: int, seen: Seen
) -> Iterator[tuple[Pair, tuple[Image.Image, Image.Image]]]:
    """The pairs of a split, each of two new pictures, with these."""
    rng = random.Random(f"{seed}/gui/{split}")
    for _ in range(wanted.pairs):
        for _ in range(TIRED):
            pair = _pair(rng, rng.choice(wanted.labels), rng.choice(wanted.actions), rng.randint(*wanted.changes))
            pictures = draw(pair.before), draw(pair.after)
            if seen.new(*pictures):
                yield pair, pictures
                break
        else:
            raise no_new_picture("gui", split, "fewer pairs, more actions or more harmless changes")


def _pair(rng: random.Random, label: str, kind: str, changes: int) -> Pair:
    before, action = situation(rng, kind)
    return Pair(before, action, drift(rng, rng.choice(outcomes(before, action, label)), changes), label)


def outcomes(before: Screen, action: Action, label: str) -> list[Screen]:
    """Screens that deserve the label after that action."""
    due = step(before, action)
    if label == NO_DEFECT:
        return [due]
    if label == NO_RESPONSE:
        return [before]
    if label == NAVIGATION:
        away = replace(before, dialog=False, focus=False, keyboard="")
        return [replace(away, page=page) for page in PAGES if page not in (before.page, due.page)]
    if label == KEYBOARD:
        return _keyboard_faults(before, due, action)
    return _wrong_results(before, due, action)


def _keyboard_faults(before: Screen, due: Screen, action: Action) -> list[Screen]:
    kind, name = action
    if kind == "field":
        return [replace(due, keyboard=wrong) for wrong in ("", "digits", "high")]
    if kind == "key":
        other = "".join(KEYS)[("".join(KEYS).index(name) + 4) % 15]
        return [replace(due, text=before.text + other), replace(due, text=due.text + name), replace(due, keyboard="")]
    if kind == "hide":
        return [replace(before, keyboard=wrong) for wrong in ("digits", "high")]
    return [replace(due, keyboard="letters")]  # it was not asked for


def _wrong_results(before: Screen, due: Screen, action: Action) -> list[Screen]:
    match action:
        case "switch", _:
            others = [i for i, (old, new) in enumerate(zip(before.switches, due.switches, strict=True)) if old == new]
            return [replace(s, switches=flip(s.switches, i)) for s in (before, due) for i in others]
        case "row", _:
            others = [i for i, (old, new) in enumerate(zip(before.ticked, due.ticked, strict=True)) if old == new]
            return [replace(s, ticked=flip(s.ticked, i)) for s in (before, due) for i in others]
        case "button", "add":
            return [replace(before, count=count) for count in (before.count - 1, before.count + 2, 0)]
        case "button", "reset":
            return [replace(before, count=0), replace(before, count=before.count + 1)]
        case "dialog", "yes":
            return [replace(due, count=before.count), replace(due, count=before.count + 1)]
        case "dialog", "no":
            return [replace(due, count=0), replace(due, count=before.count + 1)]
    return [replace(due, dialog=True)]  # it was not asked for


def _row(number: int, names: list[str], pair: Pair) -> dict[str, Any]:
    asked = f"{ASKED} [{spoken(pair.action)}]. {DEFECTS}"
    return {
        "id": number,
        "image": names,
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": pair.label}],
        "kind": pair.action[0],
    }
