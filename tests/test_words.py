"""Choices, yes and no, numbers: every usual writing, and what is none."""

import pytest

from vlmr1.answers.numbers import Number, boxed, read_number
from vlmr1.answers.words import choices_of, plain, read_choice, read_yes_no

CHOICES = {"A": "cat", "B": "dog"}


@pytest.mark.parametrize(
    "text", ["A", "(A)", "A.", "a", "A)", "[A]", "**A**", "$A$", "\\boxed{A}", "\\boxed{\\text{A}}"]
)
def test_a_letter_alone_is_a_choice(text):
    assert read_choice(text)[0] == "A"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A) cat", "A"),
        ("B. dog", "B"),
        ("(B) dog", "B"),
        ("C: a bird", "C"),
        ("The answer is A", "A"),
        ("The correct answer is (C) because of A.", "C"),
        ("Answer: D", "D"),
        ("Option B is right", "B"),
        ("B, because A is wrong.", "B"),
        ("I think it is B", "B"),
        ("Either A or B, but the answer is B", "B"),
        ("cat", "A"),
        ("It shows a dog", "B"),
        ("A, C", "AC"),
        ("C and A", "AC"),
        ("A or B", None),
        ("A/B", None),
        ("The answer is A or B", None),
        ("I do not know", None),
        ("A cat and a dog", None),
        ("", None),
        ("D is right and C is wrong", None),
    ],
)
def test_choices(text, letter):
    assert read_choice(text, CHOICES)[0] == letter


def test_choices_are_compared_without_their_wrapping():
    choices = {"A": "$\\frac{1}{2}$", "B": "P", "C": "$45k"}
    assert [read_choice(t, choices)[0] for t in ("\\frac{1}{2}", "$\\frac{1}{2}$", "P", "B", "45k")] == [*"AABBC"]


def test_the_choices_of_a_question():
    assert choices_of("Which?\nA. cat\nB. a dog\nC. none of them") == {"A": "cat", "B": "a dog", "C": "none of them"}
    assert choices_of("Which?\n(A) 1\n(B) 2") == {"A": "1", "B": "2"}
    assert choices_of("Is it? choice: (A) Yes (B) No") == {"A": "Yes", "B": "No"}
    assert choices_of("What is it ()\nChoices:\nA:40°\nB:60°\nNow answer") == {"A": "40°", "B": "60°"}
    assert choices_of("Who is J. Smith? A. Nobody knows") == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("yes", "yes"),
        ("No.", "no"),
        ("Yes, there is no car", "yes"),
        ("It is so: NO!", "no"),
        ("I do not know", None),
        ("nothing", None),
        ("yesterday", None),
        ("yes or no", None),
        ("", None),
    ],
)
def test_yes_and_no_are_words(text, word):
    assert read_yes_no(text)[0] == word


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("42", 42, ""),
        ("-3.5", -3.5, ""),
        ("−2", -2, ""),
        (".5", 0.5, ""),
        ("3.", 3, ""),
        ("1,234,567.8", 1234567.8, ""),
        ("50%", 50, "%"),
        ("50\\%", 50, "%"),
        ("\\frac{1}{2}", 0.5, ""),
        ("-\\frac12", -0.5, ""),
        ("$\\frac{3}{4}$ cm", 0.75, "cm"),
        ("10 mm", 10, "mm"),
        ("5 cm^2", 5, "cm^2"),
        ("10 m/s", 10, "m/s"),
        ("30°C", 30, "°C"),
        ("90^\\circ", 90, "°"),
        ("3/4", 0.75, ""),
        ("2 1/2", 2.5, ""),
        ("\\boxed{42}", 42, ""),
        ("so it is \\boxed{\\frac{1}{4}}.", 0.25, ""),
        ("$12", 12, ""),
        ("x = 5", 5, ""),
        ("1.5 \\times 10^{3}", 1500, ""),
        ("1e5", 100000, ""),
        ("\\text{7 cm}", 7, "cm"),
        ("12 apples", 12, "apples"),
        ("The answer is 64.", 64, ""),
        ("Therefore, the final answer is: $1,234$", 1234, ""),
        ("answer: 3/4 cm", 0.75, "cm"),
    ],
)
def test_numbers(text, value, unit):
    assert read_number(text)[0] == Number(pytest.approx(value), unit)


@pytest.mark.parametrize(
    "text", ["", "abc", "12 or 13", "5, 6", "1,23", "1/0", "1e999", "2x", "2 + 3", "9" * 500, "1" * 60]
)
def test_no_numbers(text):
    number, why = read_number(text)
    assert number is None and why


def test_the_last_closed_box_counts():
    assert boxed("\\boxed{1} and \\boxed{a{b}c}") == "a{b}c"
    assert boxed("\\boxed{1") is None and boxed("1") is None and boxed("\\boxed 1") is None


def test_text_is_compared_without_line_breaks_final_dots_and_case():
    assert plain(" No\nDefect. \r\n") == "no defect" and plain("A\n\nB") == "a b"
