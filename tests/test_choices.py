"""Choices: every usual writing, what is none, and that no letter is read unlike another."""

import time

import pytest

from vlmr1.answers import read
from vlmr1.answers.choices import choices_of, read_choice
from vlmr1.rewards.text import mcq

CHOICES = {"A": "cat", "B": "dog", "C": "a bird", "D": "none of them"}


@pytest.mark.parametrize(
    "text", ["A", "(A)", "A.", "a", "A)", "[A]", "**A**", "$A$", "\\boxed{A}", "\\boxed{\\text{A}}"]
)
def test_a_letter_alone_is_a_choice(text):
    assert read_choice(text)[0] == "A"


MARKED = [
    *[("A) cat", "A"), ("B. dog", "B"), ("(B) dog", "B"), ("C: a bird", "C"), ("A - cat", "A"), ("b) dog", "B")],
    *[("b. dog", "B"), ("C) 5 m/s", "C"), ("B. x or y", "B"), ("B) a/b", "B"), ("B: I/O", "B"), ("(B) A", "B")],
    *[("(B) the red one, not A or C", "B"), ("B because A or C is wrong", "B"), ("A) P", "A"), ("C (a bird)", "C")],
    *[("B, because A is wrong.", "B"), ("**B**. dog", "B"), ("B\n\nBecause A is dark.", "B"), ("A, C is wrong", "A")],
    *[("A) cat B) dog C) a bird", None), ("A cat, B dog", None)],
]
STATED = [
    *[("The answer is A", "A"), ("The correct answer is (C) because of A.", "C"), ("Answer: D", "D")],
    *[("the answer is b", "B"), ("Answer: b", "B"), ("the answer is a", "A"), ("the answer is a dog", "B")],
    *[("Option B is right", "B"), ("I think it is B", "B"), ("Either A or B, but the answer is B", "B")],
    *[("D is right and C is wrong", "D"), ("I pick A because of C", "A"), ("The answer is B, not A.", "B")],
    *[("The answer is $\\boxed{C}$.", "C"), ("Therefore, the correct option is (D).", "D"), ("My choice: C", "C")],
    *[("The choices are A, B, C and D. The answer is D", "D"), ("Answer: A dog", "B"), ("Answer: E", "E")],
]
TEXTS = [
    *[("cat", "A"), ("It shows a dog", "B"), ("A dog", "B"), ("None of them", "D"), ("A cat and a dog", None)],
    *[("It is not a dog", None), ("B cat", None), ("category", None)],
]
SEVERAL = [
    *[("A, C", "AC"), ("C and A", "AC"), ("AC", "AC"), ("A C", "AC"), ("A\nC", "AC")],
    *[("(A) (C)", "AC"), ("a, c", "AC")],
    *[("A) and C)", "AC"), ("Options A, C", "AC"), ("Both A and B", "AB"), ("A and C are right", "AC")],
    *[("The answer is A and C", "AC"), ("Answer: A, C", "AC"), ("Answer: AC", "AC"), ("The answer is B and D", "BD")],
]
NONE = [
    *["A or B", "A/B", "A or maybe B", "The answer is A or B", "b or c", "I do not know", "", "be"],
    *["P(A) = 5", "A = 5"],
    *["The answer is not A", "Option A is wrong", "neither A nor B", "The answer isn't A", "A does not fit"],
    *["The red dot, A better one", "U.S.A.", "f(b)", "∠A", "It is the one on the left, I think"],
]


@pytest.mark.parametrize(("text", "letter"), [*MARKED, *STATED, *TEXTS, *SEVERAL, *((text, None) for text in NONE)])
def test_choices(text, letter):
    assert read_choice(text, CHOICES)[0] == letter


def test_what_is_ruled_out_leaves_the_others():
    for text in ("not A but B", "A isn't right, B is", "Not A. Not C. So B.", "B rather than C", "A is wrong, so B"):
        assert read_choice(text, CHOICES)[0] == "B"


TEMPLATES = [
    *["{0}", "({0})", "{0})", "{0}. thing", "{0}: x", "{0}) x or y", "{0} is correct", "{0} is the answer", "{0} cat"],
    *["{0} because it is so", "I think {0} is right", "I pick {0} because of {1}", "the answer is {0}", "It is {0}!"],
    *["The answer is ({0})", "Answer: {0}, because {1} is wrong", "option {0} is wrong"],
    *["Option {0}", "option {0} fits"],
    *["not {0}", "{0} or {1}", "{0} and {1}", "{0}, {1}", "Both {0} and {1}", "{0} or maybe {1}", "{0} {1}"],
    *["The answer is {0} and {1}", "The answer is {0} or {1}", "It must be {0}", "{0} is not right", "{0} seems best"],
    *["{0} cat sits, {1} dog", "I choose {0}", "I would go with {0}.", "{0}, {1} is wrong", "{0} and {1} are right"],
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("known", [{letter: f"thing {letter}{letter}" for letter in "ABCDI"}, None])
def test_no_letter_is_read_unlike_another(template, known):
    letters = "ABCDI" if known else "ABCD"  # an I of no known choice is the pronoun
    forms = set()
    for one in letters:
        for other in letters.replace(one, ""):
            said = read_choice(template.format(one, other), known)[0]
            forms.add(said and "".join(sorted(said.replace(one, "0").replace(other, "1"))))
    assert len(forms) == 1


def test_an_article_and_a_pronoun_are_no_letters():
    for text in ("A cat sits on a mat", "I would say so", "I am sure", "I think"):
        assert read_choice(text)[0] is None
    assert read_choice("A bird is C, I think", CHOICES)[0] == "C"


def test_choices_are_compared_without_their_wrapping():
    choices = {"A": "$\\frac{1}{2}$", "B": "P", "C": "$45k"}
    assert [read_choice(t, choices)[0] for t in ("\\frac{1}{2}", "$\\frac{1}{2}$", "P", "B", "45k")] == [*"AABBC"]
    assert (
        read_choice("A) P", {"A": "P", "B": "Q"})[0] == read_choice("The answer is P", {"A": "P", "B": "Q"})[0] == "A"
    )
    assert read_choice("It is 10", {"A": "1", "B": "10", "C": "100"})[0] == "B"


def test_a_wrong_choice_earns_nothing():
    for answer in ("The answer is not A", "A and C", "A, C", "A or C", "Options A, B, C, D", "A) cat B) dog C) a bird"):
        assert mcq(read(f"<answer>{answer}</answer>"), "A", CHOICES).value == 0


@pytest.mark.parametrize(
    "text", ["A  ", "A\n\n", "A or ", "(A) ", "A, ", "answer is ", "answer is A ", "a ", "A is ", "A not "]
)
def test_a_long_answer_takes_no_long(text):
    for long in (text * (4_000 // len(text)) + "!", "A" + " " * 3_990 + "!", text * 1_300 + "A"):
        start = time.process_time()
        read_choice(long, CHOICES)
        assert time.process_time() - start < 0.1


@pytest.mark.parametrize("completion", [None, 5, b"A", ["A"]])
def test_what_is_no_text_is_an_empty_answer(completion):
    said = read(completion)
    assert said.said == "" and said.problems and mcq(said, "A", CHOICES).value == 0


def test_the_choices_of_a_question():
    assert choices_of("Which?\nA. cat\nB. a dog\nC. none of them") == {"A": "cat", "B": "a dog", "C": "none of them"}
    assert choices_of("Which?\n(A) 1\n(B) 2") == choices_of("Which?\n(a) 1\n(b) 2") == {"A": "1", "B": "2"}
    assert choices_of("Is it? choice: (A) Yes (B) No") == {"A": "Yes", "B": "No"}
    assert choices_of("What is it ()\nChoices:\nA:40°\nB:60°\nNow answer") == {"A": "40°", "B": "60°"}
    assert choices_of("Who is J. Smith? A. Nobody knows") == {}
    assert choices_of("The sides are a. Find b. What is it?") == {}
