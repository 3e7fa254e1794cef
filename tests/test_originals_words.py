"""The original's rewards of words, from their published formulas, beside ours over generated answers.

Equal within 1e-6, or the answer is of a row of the table in docs/rewards.md: each exception quotes its row, and is
needed by at least one answer. The original's choice among several letters of one answer is a heuristic without a
published formula: such answers are all of a row. So is the third part of its `math`, tested with `normalised`.
"""

import logging
import math
import random
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from vlmr1.answers import read
from vlmr1.rewards import text
from vlmr1.rewards.shape import length_reward, repetition_reward

TABLE = (Path(__file__).parents[1] / "docs" / "rewards.md").read_text()


def whole(answer):
    return f"<think>a</think><answer>{answer}</answer>"


# The original, by its formulas. Its answer block is the first for choices and the last elsewhere: here there is one.


def clean(answer):
    answer = re.sub(r"(?<=\s)[\r\n]", "", answer)
    return re.sub(r"[\r\n]", " ", answer).strip().rstrip(".").lower()


def letters_of(answer):
    """Capitals that no letter precedes and a sign or the end follows."""
    return re.findall(r"(?<![A-Z])[A-Z](?=[.,?!:;]|$)", answer.upper())


def mcq(answer, truth):
    found = set(letters_of(answer))
    return float(found == {truth})


def first_yes_no(answer):
    found = re.search("yes|no", answer.lower())
    return found[0] if found else ""


def yes_no(answer, truth):
    return float(first_yes_no(answer) == first_yes_no(truth))


def all_match(answer, truth):
    return float(clean(answer) == clean(truth))


def verified(answer, truth):
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    said, true = (math_verify.parse(one, parsing_timeout=None) for one in (answer, truth))
    return bool(math_verify.verify(said, true, timeout_seconds=None))


def mathematics(answer, truth):
    return float(clean(answer) == clean(truth) or verified(answer, truth))


def likeness(a, b):
    """2 · longest common subsequence / both lengths."""
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    return 2 * rows[-1][-1] / (len(a) + len(b)) if a or b else 1.0


def default(answer, truth):
    if verified(answer, truth):
        return 1.0
    a, b = clean(answer), clean(truth)
    if re.search(r"\d", truth):
        try:
            return float(float(a) == float(b))
        except ValueError:
            return likeness(a, b)
    if letters_of(truth):
        return mcq(answer, truth.strip().upper())
    return likeness(a, b)


# Answers, and the rows that they may be of: (what the row says, whether an answer with its truth is of it).


def several(answer, truth):
    return len(set(letters_of(answer))) > 1


ROWS_MCQ = [
    ('"A or B" is B', lambda a, t: " or " in a),
    ('"The answer is B because …" are nothing', lambda a, t: several(a, t) or not letters_of(a)),
    ('"The answer is not A." is A', lambda a, t: several(a, t) or re.search(r"\b(?:not|wrong)\b", a)),
]
ROWS_YES_NO = [
    (
        'parts of words count ("I do not know" is no)',
        lambda a, t: re.search(r"[a-z](?:yes|no)|(?:yes|no)[a-z]", a.lower()),
    ),
    ("where neither side has one, 1.0", lambda a, t: not first_yes_no(a) and not first_yes_no(t)),
    (
        '"yes or no", "yes and no" are yes; "no idea" is no',
        lambda a, t: re.search(r"yes (?:or|and) no|no idea", a.lower()),
    ),
]
UNITS = re.compile(r"\d *([a-z]+)\b")
BARE_LATEX = re.compile(r"\\|[a-z]\+[a-z]|\de\d")


def bare(answer):
    return re.fullmatch(r"-?[\d.]+", clean(answer))


ROWS_MATH = [
    (
        "of two running texts the last numbers decide",
        lambda a, t: re.search("[a-z]{4}", a) and re.search("[a-z]{4}", t),
    ),
    ("units aside, any of them", lambda a, t: UNITS.search(a) and UNITS.search(t)),
    ("decimals to six places: 0.0000001 is 0.0000002", lambda a, t: re.search(r"0\.0{6}", a + t)),
    ("`2x=4` is not `x=2`", lambda a, t: "=" in a and "=" in t),
    ("LaTeX without dollar signs is text", lambda a, t: not ("$" in a and "$" in t) and BARE_LATEX.search(a + t)),
]
ROWS_LENIENT = [
    ("`6 cm` for `5 cm` 0.75", lambda a, t: re.search(r"\d", t) and not (bare(a) and bare(t))),
    ("its letters by the original's `mcq`", lambda a, t: re.fullmatch("[A-E]", t)),
]
LETTERS = ["A", "B", "C"]
TEMPLATES = [
    *["{0}", "{0}.", "({0})", "{0}) cat", "{0}. cat", "{0}: cat", "The answer is {0}", "the answer is {0}."],
    *["Answer: {0}", "{0} or {1}", "{0}, {1}", "It is {0}!", "I think it is {0}, for it is red", "Option {0}."],
    *["the answer is not {0}.", "{0} is wrong", "Both {0}. and {1}.", "{0}, because {1} is wrong.", "a cat"],
    *[""],
]
SAYINGS = [
    *["yes", "No.", "Yes, it is", "no it is so", "I do not know", "maybe", "yes or no", "yes and no"],
    *["no idea", "", "YES!", "well, yes", "yesterday", "nothing", "There is no car", "yes. no doubt"],
]
CLASSES = [
    *["No Defect", "no defect.", "Operation No Response", "No\nDefect", "No \nDefect", "Defect", ""],
    *["unexpected"],
]
NUMBERS = [
    *["42", "42.0", "43", "-7", "0.5", "1/2", "1,234", "1234", "5 cm", "6 cm", "5", "50%", "3.141593", "1e3"],
    *["1000", "12345678", "12345679", "the answer is 42", "it has 42 legs", "7.", " 42 ", "0.333333", "x"],
    *["5 mm", "0.0000001", "0.0000002"],
]
EXPRESSIONS = [
    *[r"$\frac{1}{2}$", r"$\sqrt{8}$", r"$2\sqrt{2}$", "$x^2+2x+1$", "$(x+1)^2$", r"$\binom{5}{2}$", "$10$"],
    *["$5!$", "$120$", "$|{-3}|$", "$3$", r"$\log_{2}{8}$", "$2^{2^3}$", "$256$", "$(1,2]$", "$[1,2]$"],
    *[r"$\{1,2\}$", r"$\{2,1\}$", "$x=5$", "$5$", r"$x\in(3,\infty)$", r"$(3,\infty)$", r"$\pi$", "$a+b$"],
    *["$b+a$", "a+b", r"$\lfloor3.5\rfloor$", r"$\sum_{i=1}^{3} i$", "$6$", "$2x=4$", "$x=2$", "$x<3$"],
    *["$3>x$", r"\pi", "b+a", r"$\begin{pmatrix}1&2\\3&4\end{pmatrix}$", r"$\sin(\pi/3)$"],
    *[r"$\frac{\sqrt{3}}{2}$", "$0.5$", "$x+1$"],
]
CHOSEN = [one.format(a, b) for one in TEMPLATES for a in LETTERS for b in LETTERS if a != b]


def pairs(answers, truths, most=900):
    """All answers with all truths, or as many, drawn with a seed."""
    every = sorted({(a, t) for a in answers for t in truths})
    return every if len(every) <= most else random.Random(0).sample(every, most)


NEIGHBOURS = [*pairwise(EXPRESSIONS), *pairwise(EXPRESSIONS[::-1])]  # equal ones stand together
CASES = {
    "mcq": (mcq, ROWS_MCQ, pairs(CHOSEN, LETTERS)),
    "yes_no": (yes_no, ROWS_YES_NO, [*pairs(SAYINGS, ["yes", "no"]), ("maybe", "perhaps")]),
    "all_match": (all_match, [], pairs(CLASSES, CLASSES)),
    "math": (mathematics, ROWS_MATH, [*pairs(NUMBERS, NUMBERS), *NEIGHBOURS, *pairs(EXPRESSIONS, EXPRESSIONS, 400)]),
    "default_lenient": (
        default,
        ROWS_LENIENT,
        [*pairs(CLASSES, CLASSES), *pairs(NUMBERS[:-3], NUMBERS[:-3], 200), *pairs(CHOSEN, ["B"])],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ours_is_the_originals_but_for_the_rows_of_the_table(name):
    original, rows, answers = CASES[name]
    used, faults = set(), []
    for answer, truth in answers:
        if not truth.strip():
            continue
        ours, theirs = getattr(text, name)(read(whole(answer)), truth).value, original(answer, truth)
        if abs(ours - theirs) <= 1e-6:
            continue
        row = next((says for says, of in rows if of(answer, truth)), None)
        used.add(row)
        if row is None:
            faults.append((answer, truth, ours, theirs))
    assert not faults
    assert {says for says, _ in rows} - used == set()
    assert all(says in TABLE for says in used)


def test_length_and_repetition():
    rng = random.Random(0)
    for tokens in [0, 1024, *(rng.randrange(1025) for _ in range(50))]:
        cosine = 1.0 - 0.5 * (1 - math.cos(math.pi * tokens / 1024)) / 2
        assert length_reward(replace(read("a"), tokens=tokens), 1.0).value == pytest.approx(cosine, abs=1e-6)
    for _ in range(50):
        words = rng.choices("abcd", k=rng.randrange(60))
        grams = [tuple(words[i : i + 6]) for i in range(len(words) - 5)]
        theirs = len(set(grams)) / len(grams) - 1 if grams else 0
        assert repetition_reward(read(" ".join(words))).value == pytest.approx(theirs, abs=1e-6)
