"""Answers that are words: the plain text, a choice by its letter or its text, yes or no.

Each reader gives what was said, or None with why nothing could be read. All are linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_BREAK_AFTER_SPACE = re.compile(r"(?<=\s)[\r\n]")
_WRAPPING = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|textit)\b\s*+|[$*{}`\"]|\\[()\[\]]")
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:,)]*")
_HEAD = re.compile(r"(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z])\s?[.:,)](?=\s|$))")
_LINK = r"(?:\s+(?:is|are|would be|should be|must be|option|choice)){0,4}+\s*+[:=]?\s*+"
_STATED = re.compile(rf"(?i:\b(?:answer|option|choice|correct){_LINK})\(?([A-Z])\b(?!')")
_LETTER = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")
_LIST = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,\s*(?:and\s)?|;|&|\band\b|\s)\s*\(?[A-Z]\)?)+\.?")
_OR = re.compile(r"(?<![A-Za-z])\(?[A-Z]\)?\s*(?:,\s*)?(?:\bor\b|/|\|)\s*\(?[A-Z]\)?(?![A-Za-z])", re.IGNORECASE)
_MARK = re.compile(r"(?:^|(?<=\s))(?:\(([A-Z])\)|([A-Z])[.):])\s*+", re.MULTILINE)
_YES_NO = re.compile(r"(?<![A-Za-z'])(yes|no)(?![A-Za-z'])", re.IGNORECASE)
LONGEST = 4_000  # characters from the end in which a choice is looked for


def plain(text: str) -> str:
    """Text as two answers are compared: line breaks as blanks, no final dots, lower case.

    The original's normaliser: a break after white space goes, any other becomes a blank.
    """
    return _BREAK_AFTER_SPACE.sub("", text).replace("\n", " ").replace("\r", " ").strip().rstrip(".").lower()


def read_choice(text: str, choices: Mapping[str, str] | None = None) -> tuple[str | None, str]:
    """(letters, how they were read). Several letters, where several are the answer, in alphabetical order: "AC".

    "A", "(A)", "A.", "A) cat", "The answer is A", and where `choices` maps letters to texts the text alone. Letters
    with `or` between them are no choice.
    """
    text = _bare(text[-LONGEST:])
    known = {letter: plain(_bare(words)) for letter, words in (choices or {}).items()}
    whole = _ALONE.fullmatch(text)
    if whole and (whole[1].upper() in known or not known):
        return whole[1].upper(), "the letter"
    named = [letter for letter, words in known.items() if words == plain(text)]
    if len(named) == 1:
        return named[0], "the choice's text"
    if _LIST.fullmatch(text):
        return "".join(sorted(set(_LETTER.findall(text)))), "several letters"
    either = _OR.search(text)
    stated = [m[1] for m in _STATED.finditer(text) if not (either and either.start() <= m.start(1) < either.end())]
    if stated:
        return stated[-1], "stated as the answer"
    if either:
        return None, f"{either[0]!r} is no choice"
    head = _HEAD.match(text)
    if head:
        return next(letter for letter in head.groups() if letter), "the letter at its head"
    letters = {m[1] for m in _LETTER.finditer(text) if not _is_word(text, m)}
    if len(letters) == 1:
        return letters.pop(), "the one letter in it"
    within = [letter for letter, words in known.items() if words and words in plain(text)]
    if len(within) == 1:
        return within[0], "the one choice's text in it"
    return None, "several letters in it" if letters else "no letter of a choice"


def _bare(text: str) -> str:
    """Text without what LaTeX and Markdown wrap round a choice."""
    return _WRAPPING.sub("", text).strip()


def _is_word(text: str, match: re.Match[str]) -> bool:
    """Whether a lone capital is the article "A" or the pronoun "I" rather than a letter."""
    following = text[match.end() : match.end() + 2]
    return match[1] in "AI" and len(following) == 2 and following[0] == " " and following[1].isalpha()


def choices_of(question: str) -> dict[str, str]:
    """The choices a question lists as "(A) …", "A. …" or "A: …", by letter; none unless they run from A on."""
    marks: list[re.Match[str]] = []
    for match in _MARK.finditer(question):
        if (match[1] or match[2]) == chr(ord("A") + len(marks)):
            marks.append(match)
    if len(marks) < 2:
        return {}
    ends = [*(mark.start() for mark in marks[1:]), len(question)]
    texts = (question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True))
    return {chr(ord("A") + i): text.split("\n")[0].strip(" ,;") for i, text in enumerate(texts)}


def read_yes_no(text: str) -> tuple[str | None, str]:
    """("yes" or "no", how it was read): the first of the two as a whole word; None where both are left open."""
    found = list(_YES_NO.finditer(text[:LONGEST]))
    if not found:
        return None, "neither yes nor no in it"
    if len(found) > 1 and text[found[0].end() : found[1].start()].strip(" ,").lower() in ("or", "/"):
        return None, "yes or no, left open"
    return found[0][0].lower(), "the first such word"
