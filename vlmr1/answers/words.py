"""Answers that are words: the plain text, yes or no.

Left out on purpose: choices, which `vlmr1.answers.choices` reads. All is linear in the text.
"""

from __future__ import annotations

import re

_BREAK_AFTER_SPACE = re.compile(r"(?<=\s)[\r\n]")
# "no idea" says neither; "not yes" and "a yes or no question" neither.
_YES_NO = re.compile(
    r"(?<![A-Za-z'’])(yes|no)(?![A-Za-z'’])(?! (?:idea|doubts?|clue|questions?|problem|matter|wonder)\b)",
    re.IGNORECASE,
)
_BOTH = re.compile(r"[\s,;]*+(?:(?:or|and)\b|[/&|])?[\s,;]*+", re.IGNORECASE)
_NOT = re.compile(r"(?:\b(?:not|neither|cannot be)|n['’]t)(?: an?| the| simply)?[\s\"'“]{1,3}$", re.IGNORECASE)
LONGEST = 4_000  # characters in which yes or no is looked for


def plain(text: str) -> str:
    """Text as two answers are compared: line breaks as blanks, no final dots, lower case.

    The original's normaliser: a break after white space goes, any other becomes a blank.
    """
    return _BREAK_AFTER_SPACE.sub("", text).replace("\n", " ").replace("\r", " ").strip().rstrip(".").lower()


def read_yes_no(text: str) -> tuple[str | None, str]:
    """("yes" or "no", how it was read): the first of the two as a whole word that no "not" precedes.

    None where there is none, or where both stand side by side ("yes or no", "yes and no").
    """
    text = text[:LONGEST]
    found = list(_YES_NO.finditer(text))
    found = [one for one in found if not _NOT.search(text, max(0, one.start() - 16), one.start())]
    if not found:
        return None, "neither yes nor no in it"
    first = found[0][0].lower()
    if len(found) > 1 and found[1][0].lower() != first and _BOTH.fullmatch(text, found[0].end(), found[1].start()):
        return None, "yes or no, left open"
    return first, "the first such word"
