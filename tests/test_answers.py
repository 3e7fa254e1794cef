import random
import time

import pytest

from vlmr1.answers import read

GOOD = '<think>the red square</think><answer>{"bbox_2d":[7,14,42,49]}</answer>'


def test_a_good_completion_has_no_problems():
    said = read(GOOD)
    assert said.problems == ()
    assert said.thinking == "the red square"
    assert said.box == (7, 14, 42, 49)


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ("", "no closed answer block"),
        ("[1,2,3,4]", "no closed answer block"),
        ("<answer>[1,2,30,40]</answer>", "tags are not"),
        (GOOD + GOOD, "tags are not"),
        ("I see. " + GOOD, "text outside"),
        (GOOD.replace("</think>", "</think> so "), "text between"),
        ("<think>a</think><answer>[9,2,3,40]</answer>", "empty or inverted"),
        ("<think>a</think><answer>[-9,2,3,40]</answer>", "negative coordinate"),
        ("<think>a</think><answer>[9,2,1e13,40]</answer>", "beyond any picture"),
        ("<THINK>a</THINK><ANSWER>[1,2,3,4]</ANSWER>", "tags in capitals"),
        ("<think>a<answer>[1,2,3,4]", "never closed"),
        ("<think>" + "a" * 70_000, "longer than 65536"),
    ],
)
def test_what_was_wrong_is_said(completion, problem):
    assert any(problem in said for said in read(completion).problems)


def test_the_first_box_of_the_last_answer_counts():
    said = read("<think>a</think><answer>[1,2,3,4]</answer><answer>[5,6,7.5,8] and [1,1,9,9]</answer>")
    assert said.box == (5, 6, 7.5, 8)


def test_negative_and_float_coordinates_are_read():
    assert read("<think></think><answer>[-1.5, 2, 3, 4.25]</answer>").box == (-1.5, 2, 3, 4.25)


def test_hostile_completions_are_read_quickly_and_never_raise():
    rng = random.Random(0)
    pieces = [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "[",
        "]",
        "{",
        "1",
        "9" * 400,
        "-",
        ".",
        ",",
        " ",
        "NaN",
        "\x00",
        "𝟙",
        "e999",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(80))) for _ in range(3000)]
    texts += [
        "[" * 500_000,
        "[1," * 200_000,
        "<answer>" * 100_000,
        "[" + "1" * 1_000_000,
        "<answer>[" + " " * 1_000_000 + "</answer>",
    ]
    for text in texts:
        start = time.perf_counter()
        said = read(text)
        assert time.perf_counter() - start < 1.0
        assert said.box is None or (said.box[0] < said.box[2] and said.box[1] < said.box[3])
