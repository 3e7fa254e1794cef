"""Hostile answers made from a grammar: expressions that are dear to parse, expand or compare, and choices."""

COMMANDS = ["sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi", "infty", "cdot", "times", "alpha", "circ", "%", "pm"]
COMMANDS += [
    "cup",
    "cap",
    "in",
    "le",
    "ge",
    "lfloor",
    "rfloor",
    "binom",
    "sum",
    "frac",
    "left(",
    "right)",
    "prod",
    "int",
]
WORDS = ["is", "are", "or", "and", "not", "the", "answer", "option", "correct", "wrong", "because", "I", "think", "cat"]
WORDS += [
    "a",
    "A",
    "B",
    "C",
    "D",
    "(A)",
    "(b)",
    "B)",
    "C.",
    "A,",
    "AC",
    "A/B",
    "D:",
    "E",
    "x",
    "maybe",
    "neither",
    "nor",
]
WORDS += ["  ", "\n\n", "\t", " ", "!", "?", "-", "=", "'s", "n't", "isn't", "A's", "\\boxed{", "}", "**", "dog"]


def expression(rng, depth=0):
    """An expression, mostly well formed: deep, high, wide or long by chance."""
    part = lambda: expression(rng, depth + 1)  # noqa: E731
    if depth > 4 or rng.random() < 0.2:
        return rng.choice(
            ["x", "y", "z", "n", "1", "2", "9", "99", "0.5", "i", "e", r"\pi", "-1", "123456789", "x_1", "0"]
        )
    kind = rng.randrange(16)
    if kind < 3:
        return part() + rng.choice("+-+-*/") + part()
    if kind == 3:
        return f"({part()})" + rng.choice(["", "^2", "^{99}", "^{40}", "^{7}", "^{-9}", "!"])
    if kind == 4:
        return part() + "^{" + part() + "}"
    if kind == 5:
        return rf"\frac{{{part()}}}{{{part()}}}"
    if kind == 6:
        return rf"\sqrt{rng.choice(['', '[3]', '[99]'])}{{{part()}}}"
    if kind == 7:
        return (
            "\\" + rng.choice(["sin", "cos", "tan", "log", "ln", "exp", "arcsin", "log_{2}", "sin^2"]) + f"({part()})"
        )
    if kind == 8:
        return "".join(f"({part()})" for _ in range(rng.randrange(2, 5)))
    if kind == 9:
        return rng.choice(["", "2", "x"]).join([f"({part()})^{{{rng.randrange(30)}}}" for _ in range(3)])
    if kind == 10:
        return rng.choice([r"|{}|", r"\lfloor {} \rfloor", r"\left|{}\right|", r"{}!", r"-{}"]).replace("{}", part())
    if kind == 11:
        return rf"\binom{{{part()}}}{{{part()}}}"
    if kind == 12:
        return rf"\{rng.choice(['sum', 'prod'])}_{{i={rng.randrange(3)}}}^{{{rng.choice([3, 99, 999999])}}}{part()}"
    if kind == 13:
        return rng.choice(
            ["({}, {})", "[{}, {})", r"\{ {}, {} \}", "{} = {}", "{} < {}", r"x \in ({}, {})", "{}, {}"]
        ).replace("{}", part())
    if kind == 14:
        return rng.choice(["e^", "2^", "x^"]) + "{" + part() + "}"
    return part() + part()


def mathematics(rng):
    """An expression as answers hold them, or one with a sign changed."""
    text = expression(rng)[:130]
    if rng.random() < 0.4:
        at = rng.randrange(len(text) + 1)
        text = (
            text[:at]
            + rng.choice([*"+-*/^_{}()[]|!,=<>~%&$\\ 9x", *(f"\\{one} " for one in COMMANDS)])
            + text[at + rng.randrange(2) :]
        )
    return rng.choice(["{}", "${}$", "\\boxed{{}}", "so it is ${}$", "\\({}\\)"]).replace("{}", text, 1)


def choice(rng):
    """Words round letters; or one of them many times."""
    if rng.random() < 0.1:
        return "".join(rng.choices(WORDS, k=rng.randrange(1, 4))) * rng.randrange(1, 600) + rng.choice(WORDS)
    return rng.choice([" ", "", " ", "  "]).join(rng.choices(WORDS, k=rng.randrange(12)))
