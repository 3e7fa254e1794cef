"""The embedded world of diagrams: answers recomputed from words and from pixels."""

import json
import math
import random
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.test_world_ovd import seen
from vlmr1.files import whole_folder
from vlmr1.settings import MathSplit, MathWorld, World
from vlmr1.work import fingerprint_of
from vlmr1.world.charts import HEIGHT, WIDTH
from vlmr1.world.dataset import lists, write_world
from vlmr1.world.math import IN_PICTURE, drawn
from vlmr1.world.problems import FAMILIES, PLURALS
from vlmr1.world.scenes import COLOURS

FORMS = ("step_1", "step_2", "whole", "text_only", "vision_only")
SPLIT = MathSplit(questions=14, variants=3, families=tuple(FAMILIES), forms=FORMS)
WORLD = World(seed=5, rec=None, ovd=None, math=MathWorld(splits={"train": SPLIT, "test": SPLIT}), gui=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("math") / "w"
    with whole_folder(path) as temporary:
        write_world(WORLD, temporary, lambda _: None)
    return path / "math"


def rows(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def value(row):
    """The answer in words: of a choice the one that its letter names."""
    if row["answer_type"] != "multiple choice":
        return row["answer"]
    return dict(re.findall(r"\((\w)\) (.+?)(?= \(|$)", row["question"].split("choice: ")[1]))[row["answer"]]


def composed(text, x, y):
    """What a whole question comes to when its steps come to x and y, from its words."""
    named = re.findall(r"red|green|blue|yellow|squares|discs|crosses|frames", text)
    if "taller?" in text or "Are there more" in text:
        return named[0] if x > y else named[1]
    if "together" in text:
        return x + y
    if re.search("How much taller|How many more|By how many", text):
        return x - y
    if "perimeter" in text:
        return 2 * (x + y)
    if "area" in text:
        return x * y / (2 if "triangle" in text else 1)
    if "of the triangle" in text:
        return 180 - x - y
    return f"{x}:{y:02d}" if "What time" in text else 60 * (x % 12) + y


def same(said, due):
    return said.removesuffix(" objects") == due if isinstance(due, str) else float(said) == due


def test_the_forms_of_a_problem_are_twins(folder):
    """Joined by qid and varid, steps make the whole, which is the same with facts in words and in the picture."""
    for split in ("train", "test"):
        problems = {}
        for row in rows(folder, split):
            number, form = row["qid"].split("/")
            assert form == row["level"] and row["subject"] in FAMILIES
            problems.setdefault((number, row["varid"]), {})[form] = row
        assert len(problems) == 14 * 3 and all(tuple(twins) == FORMS for twins in problems.values())
        for twins in problems.values():
            x, y = (int(value(twins[step])) for step in ("step_1", "step_2"))
            whole, words, picture = (twins[form] for form in FORMS[2:])
            assert same(value(whole), composed(whole["question"], x, y)), twins
            assert words["question"].endswith(whole["question"]) and words["image"] == ""
            assert [int(n) for n in re.findall(r"\d+", words["question"].split(whole["question"])[0])] == [x, y]
            assert picture["question"] == IN_PICTURE and picture["image"] != whole["image"]
            assert words["answer"] == whole["answer"] == picture["answer"]
            assert twins["step_1"]["image"] == twins["step_2"]["image"] == whole["image"]


def test_variants_say_the_same_with_other_numbers(folder):
    variants = {}
    for row in rows(folder, "train"):
        if row["level"] == "whole":
            variants.setdefault(row["qid"], []).append(row)
    for group in variants.values():
        assert [row["varid"] for row in group] == [1, 2, 3]
        assert len({row["question"].split(" choice:")[0] for row in group}) == 1
        assert len({row["image"] for row in group}) == 3
        assert len({row["answer_type"] for row in group}) == 1


def test_no_picture_stands_twice_and_all_are_there(folder):
    names = {row["image"] for split in ("train", "test") for row in rows(folder, split)} - {""}
    pictures = set()
    for name in names:
        with Image.open(folder / "images" / name) as picture:
            pictures.add(picture.tobytes())
            assert picture.size == (WIDTH, HEIGHT + (28 if "vision" in name else 0))
    assert len(pictures) == len(names) == 2 * 14 * 3 * 2 == len(list((folder / "images").rglob("*.png")))
    told = [row["question"] for split in ("train", "test") for row in rows(folder, split) if row["image"] == ""]
    assert len({text.split(" choice:")[0] for text in told}) == len(told)
    assert list(lists(WORLD).values()) == [14 * 3 * 5] * 2


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    with whole_folder(tmp_path / "again") as temporary:
        write_world(WORLD, temporary, lambda _: None)
    assert fingerprint_of(folder.parent) == fingerprint_of(tmp_path / "again")


def painted(problem, colour):
    """Where a picture has that colour, about: a mask of its pixels."""
    difference = np.abs(np.asarray(drawn(problem)).astype(int) - COLOURS[colour]).max(axis=2)
    return difference < 40


def colour_of(text):
    return next(word for word in text.split() if word in COLOURS)


def measured(family, problem, step):
    """The answer of a step, read off the picture."""
    text = problem.steps[step].text
    if family == "bars":
        return round(painted(problem, colour_of(text)).any(axis=1).sum() / 12)
    if family == "counting":
        words = {word for name, _ in seen(drawn(problem)) for word in name.split()}
        (word,) = [w for w in text.split() if w in COLOURS] or [s for s, many in PLURALS.items() if many in text]
        assert word in words
        return sum(word in name.split() for name, _ in seen(drawn(problem)))
    if family in ("rectangle", "right_triangle"):
        mask = painted(problem, "white").any(axis=step)  # its outline
        return round((np.nonzero(mask)[0].max() - np.nonzero(mask)[0].min()) / 14)
    if family == "angles":
        rows, columns = np.nonzero(painted(problem, colour_of(text)))
        ring = np.hypot(columns + 0.5 - WIDTH / 2, rows + 0.5 - HEIGHT / 2)
        inside = (ring > 30) & (ring < 50)  # of all pixels of that ring, the share in this colour
        return 30 * round(inside.sum() / (math.pi * (50**2 - 30**2)) * 12)
    rows, columns = np.nonzero(painted(problem, "yellow"))
    x, y = columns + 0.5 - WIDTH / 2, rows + 0.5 - HEIGHT / 2
    hand = (np.hypot(x, y) > 20) & (np.hypot(x, y) < 45)
    turn = math.atan2(x[hand].mean(), -y[hand].mean()) / (2 * math.pi) % 1
    return 5 * (round(turn * 12) % 12)


@pytest.mark.parametrize("family", ["bars", "counting", "rectangle", "right_triangle", "angles"])
def test_steps_can_be_read_off_the_picture(family):
    rng = random.Random(7)
    for _ in range(12):
        problem = FAMILIES[family](rng)(rng)
        for step in (0, 1):
            assert measured(family, problem, step) == int(problem.steps[step].answer), problem


def test_the_minute_hand_points_where_the_answer_says():
    rng = random.Random(7)
    for _ in range(12):
        problem = FAMILIES["clock"](rng)(rng)
        assert measured("clock", problem, 1) == int(problem.steps[1].answer)


def test_triangles_are_drawn_to_scale():
    rng = random.Random(7)
    for _ in range(30):
        figure = FAMILIES["triangle"](rng)(rng).diagram
        corners = figure.corners()
        for i, (x, y) in enumerate(corners):
            (a, b), (c, d) = (p for j, p in enumerate(corners) if j != i)
            turn = math.degrees(math.atan2(b - y, a - x) - math.atan2(d - y, c - x)) % 360
            assert min(turn, 360 - turn) == pytest.approx(figure.angles[i])


def test_no_letter_and_no_rank_among_the_choices_is_the_safe_guess():
    """The right choice is not always the largest, the middle one or the first."""
    rng = random.Random(9)
    letters, ranks = Counter(), Counter()
    for _ in range(3000):
        whole = FAMILIES[rng.choice(["bars", "counting", "rectangle", "angles", "triangle"])](rng)(rng).whole
        if len(whole.choices) == 3:
            letters[whole.choices.index(whole.answer)] += 1
            ranks[sorted(map(float, whole.choices)).index(float(whole.answer))] += 1
    assert max(letters.values()) / letters.total() < 0.4
    assert max(ranks.values()) / ranks.total() < 0.5


def test_a_family_that_has_no_more_to_show_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmr1.world.math.TIRED", 30)
    split = SPLIT.model_copy(update={"questions": 1, "variants": 400, "families": ("clock",), "forms": ("whole",)})
    world = WORLD.model_copy(update={"math": MathWorld(splits={"many": split})})
    with (
        pytest.raises(ValueError, match=r"world\.math\.splits\.many: no new picture"),
        whole_folder(tmp_path / "w") as f,
    ):
        write_world(world, f, lambda _: None)
