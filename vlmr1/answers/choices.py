"""Answers that are choices: their letters, or the text that stands beside one in the question.

Single letters are found in the text, those that are listed together form a group ("A, C", "B or D"), and the words
next to a group say whether it is stated ("the answer is …", "… is right"), ruled out ("not …", "… is wrong") or merely
named. All letters are read alike: "A" is an article, and "I" a pronoun, only where any other letter would be no letter
either, before an ordinary word.
All is linear: one pass finds the letters, and of what is next to them a few dozen characters are looked at.
Left out on purpose: sentences beyond that. Where several letters remain nothing is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vlmr1.answers.words import plain

LONGEST = 4_000  # characters from the end in which a choice is looked for
_MOST = 250  # single letters in it; an answer with more says no choice
_NEAR = 64  # characters beside a group that are looked at
_WRAPPING = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|textit)\b\s*+|[$*{}`\"“”]|\\[()\[\]]")
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:,)]*")
_RUN = re.compile(r"(?i:(?:the |final |correct )?answers?(?: is| are)? ?[:=]? ?)?([A-H]{2,8})\.?")
# A letter by itself, perhaps in brackets: no part of a word, a product, a function or an abbreviation.
_LETTER = re.compile(r"(?<![\w'’^=+*\\∠.-])(?:(?<!\w)[(\[])?(?<!\w[(\[])(?<![\w'’])([A-Za-z])([)\]])?(?![\w'’^=+*\\-])")
_JOIN = re.compile(
    r" ?(?:(?:,|;|&|/|\||\band\b|\bor\b|\bnor\b) ?){0,3}"
    r"(?:(?:options?|choices?|maybe|perhaps|possibly|also|both) ){0,2}",
    re.IGNORECASE,
)
_EITHER = re.compile(r"[/|]|\b(?:or|maybe|perhaps|possibly)\b", re.IGNORECASE)
_TEXT_FOLLOWS = re.compile(r"[.:](?= \S)")
_MARKED = re.compile(r" ?[.:,)\]](?=\s|$)| [-–—](?= )")
# What may follow a bare letter, but neither an article nor "I".
_FOLLOWS = re.compile(
    r" ?(?:$|[.,:;!?)\]/|&–—]|-(?= ))| (?:is|isn['’]t|are|aren['’]t|because|since|seems|looks|appears|shows|fits"
    r"|matches|works|makes|gives|follows|has|does|doesn['’]t|and|or|but|nor)\b(?!['’])"
)
_FOLLOWS_NO_I = re.compile(
    r" (?:was|wasn['’]t|were|as|not|than|if|for|with|in|of|on|at|by|to|from|instead|rather|would|must"
    r"|should|can|cannot|can['’]t|could|may|might|have|do|don['’]t|which|that|while|whereas|so|then|also)\b(?!['’])"
)
_LINK = (
    r"(?:(?:is|are|was|be|would|should|must|will|could|may|might|seems|to|this|that|the|question|problem|therefore|thus"
    r"|then|hence|so|clearly|definitely|probably|likely|most|final|correct|right|options?|choices?|letters?|both|either"
    r"|only|just|indeed|thus|one)\b ?)"
)
_STATED = re.compile(
    rf"\b(?:answers?|correct|solution|pick|choose|chose|select|selected|go with|(?:options?|choices?) ?(?:is|are|[:=]))"
    rf" ?{_LINK}{{0,6}}[:=–—-]? ?{_LINK}{{0,3}}$",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\b(?:options?|choices?|letters?) $", re.IGNORECASE)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|cannot|neither|nor|never|except|unlike|than|instead of|exclude[sd]?|eliminate[sd]?|reject(?:s|ed)?"
    rf"|rul(?:e|es|ed|ing) out)|n['’]t) {_LINK}{{0,4}}$",
    re.IGNORECASE,
)
_NOT_AFTER = re.compile(
    r"[)\]]? (?:(?:is|are|was|were|seems?|looks?|can|could|would|must|be|do|does|did|clearly|definitely|obviously|also"
    r"|both|all|simply) ){0,4}(?:(?:not|never|cannot|wrong|incorrect|false|impossible|invalid|excluded|eliminated"
    r"|rejected|ruled|out)\b|(?:is|are|was|were|does|do|ca|could|would)n['’]t\b)",
    re.IGNORECASE,
)
_RIGHT_AFTER = re.compile(
    r" (?:is|are|must be|would be|should be|seems|looks) "
    r"(?:(?:the|most|likely|both|only|indeed|clearly|also|best) ){0,3}"
    r"(?:correct|right|true|answers?|best|solution|it)\b",
    re.IGNORECASE,
)
_ONE_AFTER = re.compile(r" (?:is|isn['’]t|was|does|doesn['’]t|has)\b", re.IGNORECASE)
_OTHER_LETTER = re.compile(r"([B-HJ-Z]) ")
_REASON = re.compile(r" (?:because|since|as|due)\b", re.IGNORECASE)
_HEAD = re.compile(r"(?:(?:the|option|choice|letter|it is|it['’]s) ){0,3}", re.IGNORECASE)
_CAPITAL_MARK = re.compile(r"(?:^|(?<=\s))(?:\(([A-Z])\)|([A-Z])[.):])\s*+", re.MULTILINE)
_SMALL_MARK = re.compile(r"(?:^|(?<=\s))\(([a-z])\)\s*+|^\s*+([a-z])[.)]\s++", re.MULTILINE)


@dataclass(slots=True)
class _Group:
    """Letters listed together."""

    letters: list[str]
    start: int
    end: int
    style: str  # the signs round each letter: "()", ")", "." … or "" of bare capitals, "a" of bare small letters
    either: bool = False  # some of them are joined by "or"
    stated: bool = False
    named: bool = False  # "option B"
    ruled_out: bool = False


def read_choice(text: str, choices: Mapping[str, str] | None = None) -> tuple[str | None, str]:
    """(letters, how they were read). Several letters, where several are the answer, in alphabetical order: "AC".

    "A", "(A)", "A.", "A) cat", "The answer is A", and where `choices` maps letters to texts the text alone. Where they
    are known, letters outside them count only alone, stated, or at the head. Letters with `or` between them are none.
    """
    text = _bare(text[-LONGEST:])
    known = {letter: plain(_bare(words)) for letter, words in (choices or {}).items()}
    whole = _ALONE.fullmatch(text)
    if whole and (whole[1].upper() in known or not known):
        return whole[1].upper(), "the letter"
    worded = _worded(text, known)
    if worded:
        return worded
    if whole:
        return whole[1].upper(), "the letter"
    run = _RUN.fullmatch(text)
    if run and (set(run[1]) <= set(known) or not known) and "".join(sorted(set(run[1]))) == run[1]:
        return run[1], "several letters"
    letters = list(_LETTER.finditer(text))
    if len(letters) > _MOST:
        return None, "too many letters in it"
    groups = _groups(text, letters, known)
    return _decided(text, groups, known) if groups else _within(text, known)


def _decided(text: str, groups: list[_Group], known: Mapping[str, str]) -> tuple[str | None, str]:
    """The choice among groups of letters: the last that is stated, else that at the head, else the only one."""
    left = [group for group in groups if not group.ruled_out]
    stated = [group for group in left if group.stated]
    before = [group for group in stated if not _RIGHT_AFTER.match(text, group.end)] or stated
    if before:
        return _worded(text[before[-1].start :], known) or _said(before[-1], "stated as the answer", known)
    marked = {group.letters[0] for group in left if len(group.letters) == 1 and group.style == groups[0].style}
    if not groups[0].ruled_out and _heads(text, groups[0]):
        if groups[0].style and len(marked) > 1:
            return None, "several choices in it"
        return groups[0].letters[0], "the letter at its head"
    left = [group for group in left if not known or set(group.letters) <= set(known)]
    if left and all(set(group.letters) == set(left[0].letters) for group in left):
        return _said(left[0], "the letters in it" if len(set(left[0].letters)) > 1 else "the one letter in it", known)
    return (None, "several letters in it") if left else _within(text, known)


def _said(group: _Group, how: str, known: Mapping[str, str]) -> tuple[str | None, str]:
    letters = "".join(sorted(set(group.letters)))
    if len(letters) > 1 and group.either:
        return None, f"{' or '.join(letters)} is no choice"
    return letters, how


def _worded(text: str, known: Mapping[str, str]) -> tuple[str, str] | None:
    """The choice whose text is all of this, an article before it aside."""
    said = plain(text)
    found = [letter for letter, words in known.items() if words and said in (words, f"a {words}", f"an {words}")]
    return (found[0], "the choice's text") if len(found) == 1 and said.upper() not in known else None


def _heads(text: str, group: _Group) -> bool:
    """Whether the answer begins with a letter that is marked as a choice's: "B) …", "B, because …"."""
    if len(group.letters) > 1 or not _HEAD.fullmatch(text, 0, group.start):
        return False
    return group.style not in ("", "a") or bool(_MARKED.match(text, group.end) or _REASON.match(text, group.end))


def _groups(text: str, letters: list[re.Match[str]], known: Mapping[str, str]) -> list[_Group]:
    """The letters of a text in groups, without the words that only look like letters."""
    joined: list[_Group] = []
    for match in letters:
        one = _Group([match[1].upper()], match.start(), match.end(), _style(text, match))
        last = joined[-1] if joined else None
        between = _JOIN.fullmatch(text, last.end, one.start) if last and one.start - last.end < _NEAR else None
        if last and between and last.style == one.style and _is_letter(text, one, known):
            if between[0].strip() == "," and _ONE_AFTER.match(text, one.end):  # "B, A is wrong"
                joined.append(one)
                continue
            last.letters += one.letters
            last.end = one.end
            last.either = last.either or bool(_EITHER.search(between[0]))
        else:
            joined.append(one)
    groups = []
    for group in joined:
        if group.style == "a" and not _is_letter(text, group, known):
            continue
        before = text[max(0, group.start - _NEAR) : group.start]
        group.ruled_out = bool(_NOT_BEFORE.search(before) or _NOT_AFTER.match(text, group.end))
        group.stated = bool(_STATED.search(before) or _RIGHT_AFTER.match(text, group.end))
        group.named = bool(_NAMED.search(before))
        if _counts(text, group, known):
            groups.append(group)
    return groups


def _style(text: str, match: re.Match[str]) -> str:
    opened = match[0][0] if match[0][0] in "([" and match[2] else ""
    if match[2]:
        return opened + match[2]
    if match[0][0] not in "([" and (mark := _TEXT_FOLLOWS.match(text, match.end())):
        return mark[0]
    return "" if match[1].isupper() else "a"


def _is_letter(text: str, group: _Group, known: Mapping[str, str]) -> bool:
    """Whether the last letter of a group is one by what follows it, and one of the known ones."""
    letter = group.letters[-1]
    if known and letter not in known:
        return False
    if group.style not in ("", "a"):
        return True
    return bool(_FOLLOWS.match(text, group.end) or (letter != "I" and _FOLLOWS_NO_I.match(text, group.end)))


def _counts(text: str, group: _Group, known: Mapping[str, str]) -> bool:
    told = group.stated or group.named
    sure = _is_letter(text, group, known)
    if group.style == "a":  # bare small letters
        return told or text.rstrip(".") == text[group.start : group.end]
    if group.letters == ["I"] and "I" not in known and not group.style:
        return group.stated and bool(_FOLLOWS.match(text, group.end))
    return sure or (told and group.letters != ["I"]) or _heads(text, group)


def _within(text: str, known: Mapping[str, str]) -> tuple[str | None, str]:
    """The one choice whose text is in the answer, as whole words that no "not" precedes."""
    said = plain(text)
    found = {letter: words for letter, words in known.items() if words and words in said and _stands(words, said)}
    found = {a: words for a, words in found.items() if not any(words != w and words in w for w in found.values())}
    other = _OTHER_LETTER.match(text)  # "B cat" where A is the cat
    if len(found) != 1 or (other and other[1] in known and other[1] not in found):
        return None, "no letter of a choice"
    return next(iter(found)), "the one choice's text in it"


def _stands(words: str, text: str) -> bool:
    before = r"(?<![\w-])(?<!\d[.,])(?<!not )(?<!not a )(?<!not an )(?<!not the )"
    return re.search(rf"{before}{re.escape(words)}(?!\w|[.,]\d)", text) is not None


def _bare(text: str) -> str:
    """Text without what LaTeX and Markdown wrap round a choice, its blanks single."""
    return " ".join(_WRAPPING.sub("", text).split())


def choices_of(question: str) -> dict[str, str]:
    """The choices a question lists as "(A) …", "A. …" or "A: …", by letter; none unless they run from A on.

    Small letters count as "(a) …", or as "a) …" and "a. …" where they begin a line.
    """
    return _listed(question, _CAPITAL_MARK) or _listed(question, _SMALL_MARK)


def _listed(question: str, mark: re.Pattern[str]) -> dict[str, str]:
    marks: list[re.Match[str]] = []
    for match in mark.finditer(question):
        if (match[1] or match[2]).upper() == chr(ord("A") + len(marks)):
            marks.append(match)
    if len(marks) < 2:
        return {}
    ends = [*(mark.start() for mark in marks[1:]), len(question)]
    texts = (question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True))
    return {chr(ord("A") + i): text.split("\n")[0].strip(" ,;") for i, text in enumerate(texts)}
