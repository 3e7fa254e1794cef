"""Boxes and their labels in an answer: fenced or bare, JSON or what ought to be JSON.

JSON that is whole is read as such (`vlmr1.answers.objects`). In anything else boxes and labels are found by scanning,
whatever stands around them: a box is four numbers in brackets, under whatever key or under none, or two points; a label
is the value of `label` or a kin of it in the same object; quotes and braces may be missing, single or double.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vlmr1.answers.objects import BOX_KEYS, LABEL_KEYS, Numbers, listed, text_of, whole
from vlmr1.boxes import Box

# Possessive quantifiers: no backtracking, so no input makes the search slow.
_NUMBER = r"\s*+([-+]?+\d{1,40}(?:\.\d{1,40})?(?:[eE][-+]?\d{1,3})?)\s*+"
_COMMA = r"(?:,|(?<=\s))"  # numbers may also stand apart by blanks alone
_POINTS = rf"(?:[\])]\s*+,?+\s*+[\[(]|{_COMMA})"
_BOX = rf"[\[(]{_NUMBER}{_COMMA}{_NUMBER}{_POINTS}{_NUMBER}{_COMMA}{_NUMBER}[\])]"
# No possessive group around it: Python before 3.11.5 loses its end.
_BOX_KEY = rf"(?<!\w)[\"']?+(?:{'|'.join(BOX_KEYS)})[\"']?+\s*+[:=]\s*+"
_KEY = rf"(?<!\w)[\"']?+((?i:{'|'.join(sorted(LABEL_KEYS, key=len, reverse=True))}))[\"']?+\s*+[:=]\s*+"
_VALUE = r"(?:\"((?:[^\"\\]|\\.){0,400}+)\"|'((?:[^'\\]|\\.){0,400}+)'|([^\s\"',{}\[\]][^\"',{}\[\]\n]{0,400}+))"
_STRING = r"\"(?:[^\"\\]|\\.){0,400}+\""
_TOKEN = re.compile(
    rf"(?:{_BOX_KEY}[\"']?(?:\[(?=\s*[\[(]))?)?{_BOX}|(?P<claim>{_BOX_KEY}(?=[^\s{{]))|{_KEY}{_VALUE}|(?P<text>{_STRING})|\{{++|\}}++",
    re.DOTALL,
)
_FENCE = re.compile(r"```")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NOTHING = {"none", "null", "[]", "[none]", "[null]"}
FARTHEST = 1e12  # pixels: no picture is that large
NAMED = 8  # faulty boxes that are named one by one


class Found(NamedTuple):
    """A box with its label, "" where none was said."""

    box: Box
    label: str


class Reading(NamedTuple):
    """What an answer's text holds of boxes."""

    found: tuple[Found, ...]  # ordered and non-empty, in order of appearance
    refused: tuple[tuple[int, Found], ...]  # empty, inverted or beyond reason; with how many good ones stand before
    unread: int  # items that ought to be boxes and are no four numbers
    faults: tuple[str, ...]


NOTHING = Reading((), (), 0, ())


def is_none(text: str) -> bool:
    """Whether the text says that there is nothing: `None` or an empty list, fenced or quoted or not."""
    text = text.strip()
    return len(text) < 60 and "".join(fenced(text).split()).strip("\"'`*.").lower() in _NOTHING


def fenced(text: str) -> str:
    """What stands in the fence that counts, less the word `json` at its head; without a fence the text itself.

    That is the last closed ``` fence marked `json`, else the last that holds a bracket, else the last; one that is cut
    off counts only where none is closed.
    """
    marks = [m.start() for m in _FENCE.finditer(text)]
    if not marks:
        return text
    blocks = [text[a + 3 : b] for a, b in zip(marks[::2], marks[1::2], strict=False)] or [text[marks[0] + 3 :]]
    marked = [block[4:] for block in blocks if block[:4].lower() == "json"]
    return (marked or [block for block in blocks if "[" in block or "{" in block] or blocks)[-1]


def scan(text: str) -> Reading:
    """Every box of the text with its label, in the frame the text speaks in, and what was wrong."""
    inside = fenced(text)
    values = whole(inside)
    items = _scanned(inside) if values is None else list(listed(values))
    found: list[Found] = []
    refused: list[tuple[int, Found]] = []
    faults: list[str] = []
    unread = 0
    for box, label, fault in items:
        if box is None:
            unread += 1
        elif not (0 <= box[0] < box[2] < FARTHEST and 0 <= box[1] < box[3] < FARTHEST):  # not plainly good
            wrong = _fault(box)
            fault = f"box {list(box)} {wrong or 'has a negative coordinate'}"
            if wrong:
                refused.append((len(found), Found(box, label)))
            else:
                found.append(Found(box, label))
        else:
            found.append(Found(box, label))
        if fault and len(faults) < NAMED:
            faults.append(fault)
    return Reading(tuple(found), tuple(refused), unread, tuple(faults))


class _Object:
    """An object that is open while text is scanned: its label, and which boxes that label is of."""

    __slots__ = ("depth", "first", "label", "rank", "since")

    def __init__(self, boxes: int, depth: int) -> None:
        self.depth = depth  # braces that opened it
        self.label, self.rank = "", len(LABEL_KEYS)
        self.since = self.first = boxes  # places of the boxes of the last label, and of those that came after it


def _scanned(text: str) -> list[tuple[Numbers | None, str, str]]:
    """As `vlmr1.answers.objects.listed`, from text that is no JSON."""
    items: list[tuple[Numbers | None, str, str]] = []
    outside = _Object(0, 0)
    open_ones: list[_Object] = []
    place = 0
    while (match := _TOKEN.search(text, place)) is not None:
        place = match.end()
        inner = open_ones[-1] if open_ones else outside
        if match.lastgroup == "text":
            if not open_ones:
                place = match.start() + 1  # in running text quotes may hold the answer
        elif match.lastgroup == "claim":
            items.append((None, inner.label, f"{text[match.start() : place + 40]!r} is no box"))
        elif match.lastindex == 4:
            items.append((tuple(map(float, match.group(1, 2, 3, 4))), inner.label, ""))  # type: ignore[arg-type]
        elif match.lastindex is not None:
            rank = LABEL_KEYS.index(match[6].lower())
            if rank <= inner.rank:
                if len(items) > inner.first:
                    inner.since = inner.first
                inner.label, inner.rank = _text(match), rank
                items[inner.since :] = [(box, inner.label, fault) for box, _, fault in items[inner.since :]]
                inner.first = len(items)
        elif match[0][0] == "{":
            open_ones.append(_Object(len(items), len(match[0])))
        else:
            closed = len(match[0])
            while open_ones and closed >= open_ones[-1].depth:
                closed -= open_ones.pop().depth
            if open_ones:
                open_ones[-1].depth -= closed
            else:
                outside = _Object(len(items), 0)
    return items


def _fault(box: Numbers) -> str:
    """Why four numbers are no box, or ""."""
    if not all(-FARTHEST < number < FARTHEST for number in box):
        return "is beyond any picture"
    if box[2] <= box[0] or box[3] <= box[1]:
        return "is empty or inverted"
    return ""


def _text(match: re.Match[str]) -> str:
    """A label as it was meant: JSON's escapes resolved, blanks at the ends of a bare word dropped."""
    value = match[match.lastindex or 0]
    if match.lastindex == 9:
        value = value.strip()
        return "" if value in ("null", "None") else value
    if "\\" in value:
        value = _ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else _PLAIN.get(m[1], m[1]), value)
    return text_of(value)
