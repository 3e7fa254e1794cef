"""Rewards of answers in words, and of shape: values, reasons, and what the original's defects would have given."""

import math

import pytest

from vlmr1.answers import read
from vlmr1.rewards import text
from vlmr1.rewards.mathematics import equal, normalised
from vlmr1.rewards.shape import format_reward, length_reward, repetition_reward


def whole(answer):
    return read(f"<think>a</think><answer>{answer}</answer>")


CASES = [  # method, answer, truth, ours
    ("mcq", "B) cat", "B", 1),  # the original: 0
    ("mcq", "(B)", "B", 1),  # 0
    ("mcq", "A or B", "B", 0),  # 1
    ("mcq", "B.", "B", 1),
    ("mcq", "The answer is C", "B", 0),
    ("mcq", "", "B", 0),
    ("yes_no", "I do not know", "no", 0),  # 1
    ("yes_no", "maybe", "perhaps", 0),  # 1, both unreadable
    ("yes_no", "Yes, it is.", "yes", 1),
    ("yes_no", "no", "yes", 0),
    ("default", "10 mm", "10 cm", 0),  # 1
    ("default", "Operation No Response", "No Defect", 0),  # a third
    ("default", "10 cm", "10 cm", 1),
    ("default", "10", "10 cm", 1),
    ("default", "(B) dog", "B", 1),
    ("default", "\\frac{1}{2}", "0.5", 1),
    ("default", "a red car", "A red car.", 1),
    ("default", "12", "13", 0),
    ("math", "\\boxed{\\frac{1}{2}}", "1/2", 1),
    ("math", "x^2+2x+1", "(x+1)^2", 1),
    ("math", "$\\sqrt{8}$", "2\\sqrt{2}", 1),
    ("math", "the answer is 42", "42", 1),
    ("math", "k = 5", "5", 1),
    ("math", "3\\text{ cm}", "3", 1),
    ("math", "90^\\circ", "90", 1),
    ("math", "50\\%", "50", 1),
    ("math", "50\\%", "0.5", 1),
    ("math", "(1,2]", "[1,2]", 0),
    ("math", "\\{1,2\\}", "\\{2,1\\}", 1),
    ("math", "2x", "2", 0),
    ("math", "9^{9^{9}}", "3", 0),
    ("math", "$\\binom52$", "10", 1),
    ("math", "$|{-3}|$", "3", 1),
    ("math", "$5!$", "120", 1),
    ("math", "5!", "5", 0),
    ("math", "$\\log_{2}{8}$", "3", 1),
    ("math", "$2^{2^3}$", "256", 1),
    ("math", "$\\sum_{i=1}^{3} i$", "6", 1),
    ("math", "\\lfloor3.5\\rfloor", "3", 1),
    ("math", "$\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}$", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", 1),
    ("math", "so x = 42.", "42", 1),
    ("math", "5\\sqrt2 cm", "5\\sqrt2", 1),
    ("math", "5\\sqrt2 cm", "5\\sqrt2 mm", 0),
    ("math", "x\\in(3,\\infty)", "(3,\\infty)", 1),
    ("math", "(-\\infty,1)\\cup(2,3]", "(2, 3] \\cup (-\\infty, 1)", 1),
    ("math", "-x<-3", "x>3", 1),
    ("math", "x<3", "x>3", 0),
    ("math", "y=2x+1", "y-2x=1", 1),
    ("math", "\\sqrt{x^2}", "x", 0),
    ("math", "10^{20}+1", "10^{20}", 0),
    ("math", "\\sin^2 x+\\cos^2 x", "1", 1),
    ("math", "3.141593", "\\pi", 1),
    ("math", "12345678901234567", "12345678901234568", 0),
    ("math", "1.5 million", "1.5", 0),
    ("math", "1.5 million", "1500000", 1),
    ("math", "5 m", "5 ms", 0),
    ("math", "5 MW", "5 mW", 0),
    ("math", "30°", "30 degrees", 1),
    ("math", "25 percent", "0.25", 1),
    ("math", "5 m²", "5 m^2", 1),
    ("numeric", "1,234", "1234", 1),
    ("numeric", "0.50", ".5", 1),
    ("numeric", "about five", "5", 0),
    ("numeric", "5 cm", "5 mm", 0),
    ("all_match", "no defect.", "No Defect", 1),
    ("all_match", "No\nDefect", "No Defect", 1),
    ("all_match", "Defect", "No Defect", 0),
]


@pytest.mark.parametrize(("method", "answer", "truth", "value"), CASES)
def test_values(method, answer, truth, value):
    reward = getattr(text, method)(whole(answer), truth)
    assert reward.value == value and reward.reason


def test_without_an_answer_block_the_rest_is_read():
    assert text.default(read("<think>41?</think> 42"), "42").value == 1
    assert text.mcq(read("B"), "B").value == 1


def test_the_text_of_a_choice_counts_where_the_choices_are_known():
    choices = {"A": "cat", "B": "dog"}
    assert text.mcq(whole("a dog"), "B", choices).value == 1
    assert text.mcq(whole("a dog"), "B").value == 0


def test_partial_credit_for_words_is_offered_by_name():
    reward = text.default_lenient(whole("Operation No Response"), "No Defect")
    assert reward.value == pytest.approx(text.ratio("operation no response", "no defect"))
    assert 0.3 < reward.value < 0.4
    assert text.default_lenient(whole("12"), "13").value == 0


@pytest.mark.parametrize(("a", "b", "value"), [("", "", 1), ("a", "", 0), ("abc", "abc", 1), ("abcd", "abed", 0.75)])
def test_ratio(a, b, value):
    assert text.ratio(a, b) == value


def test_ratio_is_the_longest_common_subsequence():
    import random

    rng = random.Random(0)
    for _ in range(50):
        a, b = ("".join(rng.choices("abc d", k=rng.randrange(1, 30))) for _ in "ab")
        rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
        assert text.ratio(a, b) == pytest.approx(2 * rows[-1][-1] / (len(a) + len(b)))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\\tfrac12", "\\frac{1}{2}"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("1/2", "\\frac{1}{2}"),
        (".5", "\\frac{1}{2}"),
        ("k=3", "3"),
        ("30^\\circ", "30"),
        ("12\\%", "12"),
        ("5\\text{ cm}", "5"),
    ],
)
def test_strings_are_written_as_the_MATH_benchmark_writes_them(text, written):
    assert normalised(text) == written


def test_equality_says_by_what():
    assert equal("42", "42.0") == (True, "the same number")
    assert equal("10 mm", "10 cm") == (False, "mm where cm is right")


# Shape.


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        ("<think>a\nb</think>\n <answer>b\n</answer>", 1),
        ("<think></think><answer></answer>", 1),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 1),
        ("<think>a</think><answer>b</answer> ", 0),
        (" <think>a</think><answer>b</answer>", 0),
        ("<think>a</think>so<answer>b</answer>", 0),
        ("<think>a</think><answer>b", 0),
        ("<think>a</think></answer>", 0),
        ("<think></think><answer>", 0),
        ("<answer>b</answer>", 0),
        ("", 0),
    ],
)
def test_the_general_format_is_the_originals(completion, value):
    import re

    published = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", completion, re.DOTALL)
    reward = format_reward(read(completion))
    assert reward.value == value == float(published is not None) and reward.reason


def tokens(n):
    from dataclasses import replace

    return replace(read("a"), tokens=n)


def test_length_falls_to_its_maximum_and_stays_there():
    right = [length_reward(tokens(n), 1.0).value for n in (0, 512, 1024, 1536, 2048, 10**9)]
    assert right == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.5, 0.5])  # the original: 0.75 at 1536 and 1.0 at 2048
    wrong = [length_reward(tokens(n), 0.69).value for n in (0, 512, 1024, 2048)]
    assert wrong == pytest.approx([0.0, -0.25, -0.5, -0.5])  # the original never comes here
    assert length_reward(tokens(100), 0.7).value == pytest.approx(1 - 0.25 * (1 - math.cos(math.pi * 100 / 1024)))


def test_without_the_models_count_words_and_signs_are_counted():
    assert "5 tokens" in length_reward(read("two words, here."), 1.0).reason


def test_repetition_counts_boxes_of_a_list_and_otherwise_word_six_grams():
    one = '{"bbox_2d":[1,2,3,4],"label":"cat"}'
    assert repetition_reward(whole(f"```json\n[{one},{one},{one},{one}]\n```")).value == -0.75
    assert repetition_reward(whole(f"[{one}]")).value == 0
    assert repetition_reward(read("a b c d e")).value == 0
    assert repetition_reward(read("a b c d e f " * 10)).value == pytest.approx(6 / 55 - 1)
    assert repetition_reward(whole("[1, 2, [3], null]")).value == 0  # the original raises
