"""Yes and no, numbers: every usual writing, and what is none."""

import pytest

from vlmr1.answers.numbers import Number, boxed, read_number
from vlmr1.answers.units import same_unit
from vlmr1.answers.words import plain, read_yes_no


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
        ("yes and no", None),
        ("Yes/No", None),
        ("I have no idea", None),
        ("there is no doubt: yes", "yes"),
        ("not yes", None),
        ("It isn't a yes, so no", "no"),
        ("no defect", "no"),
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
        ("-\r12", -12, ""),
        ("Therefore, the final answer is: $1,234$", 1234, ""),
        ("answer: 3/4 cm", 0.75, "cm"),
        ("It has x=3. The answer is 42 cm.", 42, "cm"),
        ("so x = 42.", 42, ""),
        ("1{,}234", 1234, ""),
        ("1 234 567", 1234567, ""),
        ("\\(7\\)", 7, ""),
        ("$\\$7$", 7, ""),
        ("`7`", 7, ""),
        ("(7)", 7, ""),
        ("12 \\mathrm{cm}^2", 12, "cm^2"),
        ("about 7", 7, ""),
        ("1.5 million", 1500000, ""),
        ("5 million dollars", 5000000, "dollars"),
        ("25 percent", 25, "%"),
    ],
)
def test_numbers(text, value, unit):
    assert read_number(text)[0] == Number(pytest.approx(value), unit)


@pytest.mark.parametrize(
    "text", ["", "abc", "12 or 13", "5, 6", "1,23", "1/0", "1e999", "2x", "2 + 3", "5!", "(3, 4)", "9" * 500, "1" * 60]
)
def test_no_numbers(text):
    number, why = read_number(text)
    assert number is None and why


def test_whole_numbers_are_exact():
    assert read_number("12345678901234567")[0].value == 12345678901234567 != read_number("12345678901234568")[0].value


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("30°", "30 degrees"),
        ("25 percent", "25%"),
        ("5 m²", "5 m^2"),
        ("5 m^{2}", "5 square meters"),
        ("5 cm", "5 centimetres"),
        ("5 cm", "5 CM"),
        ("10 m/s", "10 meters per second"),
        ("30 °C", "30 degrees Celsius"),
        ("5 ft", "5 feet"),
        ("2 hrs", "2 hours"),
        ("12 apples", "12 Apple"),
    ],
)
def test_a_unit_has_several_writings(a, b):
    assert same_unit(read_number(a)[0].unit, read_number(b)[0].unit)


@pytest.mark.parametrize(("a", "b"), [("m", "ms"), ("MW", "mW"), ("mm", "cm"), ("m", "m^2"), ("years", "units")])
def test_units_that_differ(a, b):
    assert not same_unit(a, b)


def test_the_last_closed_box_counts():
    assert boxed("\\boxed{1} and \\boxed{a{b}c}") == "a{b}c"
    assert boxed("\\boxed{1") is None and boxed("1") is None and boxed("\\boxed 1") is None


def test_text_is_compared_without_line_breaks_final_dots_and_case():
    assert plain(" No\nDefect. \r\n") == "no defect" and plain("A\n\nB") == "a b"
