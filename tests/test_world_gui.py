"""The embedded world of screens: labels that follow from what is seen, and that no comparison of pixels gives away."""

import json
import random
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from vlmr1.files import whole_folder
from vlmr1.settings import GuiSplit, GuiWorld, World
from vlmr1.settings.world import Act, Label
from vlmr1.work import fingerprint_of
from vlmr1.world.dataset import lists, write_world
from vlmr1.world.draw import Seen
from vlmr1.world.gui import outcomes, pairs
from vlmr1.world.scenes import COLOURS
from vlmr1.world.screens import PAGES, ROWS, SWITCHES, Screen, draw, drift, situation, step

ACTS, LABELS = get_args(Act), get_args(Label)
QUIET = ("No Defect", "Operation No Response")
SPLIT = GuiSplit(pairs=300, actions=ACTS, labels=LABELS, changes=(1, 3))


@pytest.fixture(scope="module")
def examples():
    return list(pairs("train", SPLIT, 1, Seen()))


def expected(screen, kind, name):
    """A second telling of what each action should do, in changed fields."""
    if kind == "tab":
        return {"page": name, "focus": False}
    if kind in ("switch", "row"):
        field, names = ("switches", SWITCHES) if kind == "switch" else ("ticked", ROWS)
        return {field: tuple(v != (n == name) for v, n in zip(getattr(screen, field), names, strict=True))}
    return {
        "add": {"count": screen.count + 1},
        "reset": {"dialog": True},
        "yes": {"dialog": False, "count": 0},
        "no": {"dialog": False},
        "search": {"focus": True, "keyboard": "letters"},
        "keyboard": {"focus": False, "keyboard": ""},
    }.get(name, {"text": screen.text + name})


def test_every_label_follows_from_what_was_there_done_and_seen(examples):
    for pair, _ in examples:
        kind, name = pair.action
        due = replace(pair.before, **expected(pair.before, kind, name))
        if pair.after.seen() == due.seen():
            label = "No Defect"
        elif pair.after.seen() == pair.before.seen():
            label = "Operation No Response"
        elif pair.after.page != due.page:
            label = "Navigation Logic Error"
        elif pair.after.keyboard != due.keyboard or (kind == "key" and pair.after.text != due.text):
            label = "Virtual Keyboard Related Issue"
        else:
            label = "Unexpected Task Result"
        assert pair.label == label, pair


def test_pictures_and_action_settle_the_label():
    """What a picture hides must not matter: equal pictures and actions never come with two labels."""
    rng = random.Random(4)
    for kind in ACTS:
        for _ in range(2):
            screen, action = situation(rng, kind)
            looks, found = draw(screen).tobytes(), {}
            for _ in range(4):
                other, _ = situation(rng, kind)
                hidden = {f: getattr(other, f) for f in ("count", "ticked", "switches", "text")}
                for twin in (screen, *(replace(screen, **{f: v}) for f, v in hidden.items())):
                    if draw(twin).tobytes() != looks:
                        continue
                    for label in LABELS:
                        for outcome in outcomes_of(twin, action, label):
                            assert found.setdefault(draw(outcome).tobytes(), label) == label, (twin, action)


def outcomes_of(screen, action, label):
    found = outcomes(screen, action, label)
    assert found
    return found


def test_the_action_alone_says_little_of_the_label(examples):
    table = Counter((pair.action[0], pair.label) for pair, _ in examples)
    assert sum(max(table[kind, label] for label in LABELS) for kind in ACTS) / len(examples) < 0.35
    assert all(table[kind, label] for kind in ACTS for label in LABELS)


def best_threshold(differences, labels):
    """The share of labels right under the best rule "A up to a difference of t, B above it", chosen with hindsight."""
    order = np.argsort(differences, kind="stable")
    differences, labels = np.asarray(differences)[order], np.asarray(labels)[order]
    best = 0
    for cut in range(len(labels) + 1):
        if 0 < cut < len(labels) and differences[cut] == differences[cut - 1]:
            continue
        sides = (labels[:cut], labels[cut:])
        best = max(best, sum(max(Counter(side.tolist()).values(), default=0) for side in sides))
    return best / len(labels)


@pytest.mark.parametrize("measure", ["changed pixels", "size of the change"])
def test_no_threshold_on_the_difference_gives_the_labels_away(examples, measure):
    differences, labels = [], []
    for pair, (before, after) in examples:
        difference = np.abs(np.asarray(before).astype(int) - np.asarray(after)).max(axis=2)
        differences.append(int((difference > 0).sum() if measure == "changed pixels" else difference.sum()))
        labels.append(pair.label)
    assert min(differences) > 0  # equal pixels settle nothing
    assert best_threshold(differences, labels) < 0.45
    response = [label != "Operation No Response" for label in labels]
    assert best_threshold(differences, response) < np.mean(response) + 0.1
    two = [(d, label) for d, label in zip(differences, labels, strict=True) if label in QUIET]
    assert best_threshold(*zip(*two, strict=True)) < 0.8


def test_a_screen_shows_its_state():
    """Each change of the state changes the picture, and some can be read back from pixels."""
    rng = random.Random(2)
    for kind in ACTS:
        screen, action = situation(rng, kind)
        assert draw(step(screen, action)).tobytes() != draw(screen).tobytes()
        pixels = np.asarray(draw(screen))
        assert tuple(pixels[15, 100]) == shown(COLOURS[PAGES[screen.page]], screen.dim)
    for switches in ((True, False, True), (False, True, False)):
        pixels = np.asarray(draw(Screen("menu", switches=switches)))
        read = tuple(tuple(pixels[55 + 30 * i + 13, 80]) == COLOURS["green"] for i in range(3))
        assert read == switches


def shown(colour, dim):
    return tuple(v * 3 // 4 for v in colour) if dim else colour


def test_harmless_changes_touch_nothing_that_was_asked_for():
    rng = random.Random(3)
    for _ in range(100):
        screen, _ = situation(rng, rng.choice(ACTS))
        other = drift(rng, screen, rng.randint(1, 5))
        assert other.seen() == screen.seen() and draw(other).tobytes() != draw(screen).tobytes()


def test_the_list_is_the_original_projects_and_no_picture_stands_twice(tmp_path):
    splits = {name: SPLIT.model_copy(update={"pairs": 30}) for name in ("train", "test")}
    world = World(seed=1, rec=None, ovd=None, math=None, gui=GuiWorld(splits=splits))
    for name in ("a", "b"):
        with whole_folder(tmp_path / name) as folder:
            write_world(world, folder, lambda _: None)
    assert fingerprint_of(tmp_path / "a") == fingerprint_of(tmp_path / "b")
    seen = set()
    for split in splits:
        rows = [json.loads(line) for line in (tmp_path / f"a/gui/{split}.jsonl").read_text().splitlines()]
        assert len(rows) == lists(world)[f"gui/{split}.jsonl", None]
        for row in rows:
            human, gpt = row["conversations"]
            assert gpt["value"] in LABELS and human["value"].count("[") == human["value"].count("]") == 1
            assert all(label in human["value"] for label in LABELS) and len(row["image"]) == 2
            for name in row["image"]:
                with Image.open(tmp_path / "a/gui/images" / name) as picture:
                    seen.add(picture.tobytes())
    assert len(seen) == 2 * 2 * 30


def test_a_split_without_harmless_changes_is_refused():
    with pytest.raises(ValueError, match="changes: fewest and most, 1 to 5"):
        GuiSplit(pairs=1, actions=ACTS, labels=LABELS, changes=(0, 1))
