"""Screens of a small app as a state machine: four pages, what can be done on each, and what that should lead to.

What the app is asked to do is in the state; what changes by itself (clock, battery, a dot, the cursor, a banner, the
light of the display) is too, and no action touches it. Left out on purpose: scrolling, gestures, and the looks of any
real app.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image

from vlmr1.world.draw import INK, LINE, PAPER, Canvas
from vlmr1.world.scenes import COLOURS, GROUND

SIZE = (112, 168)  # pixels of a screen
PAGES = {"home": "blue", "list": "green", "find": "magenta", "menu": "red"}  # and their colours
SWITCHES = ("wifi", "sound", "alarm")
ROWS = ("milk", "bread", "eggs", "tea")
KEYS = ("abcde", "fghij", "klmno")
DIGITS = ("12345", "67890", "+-*/=")
BANNERS = ("new songs", "big sale", "sunny day")
LONGEST = 5  # letters in the search field
Action = tuple[str, str]  # kind and object, e.g. ("tab", "list")


@dataclass(frozen=True)
class Screen:
    page: str
    switches: tuple[bool, ...] = (False, False, False)
    ticked: tuple[bool, ...] = (False, False, False, False)
    count: int = 0
    dialog: bool = False
    text: str = ""  # of the search field
    focus: bool = False  # of the search field
    keyboard: str = ""  # "", "letters", "digits", or "high": over the page instead of at its foot
    # What changes by itself:
    clock: int = 0  # minutes since midnight
    battery: int = 4  # 1 to 4
    dot: bool = False  # of a message that came
    cursor: bool = True  # lit, in a field with focus
    banner: int = 0
    dim: bool = False  # the whole display

    def seen(self) -> tuple[object, ...]:
        """What of the app's state can be seen, without what changes by itself and what other pages hold."""
        held = {
            "home": self.count,
            "list": self.ticked,
            "find": (self.text, self.focus),
            "menu": self.switches,
        }
        return self.page, held[self.page], self.dialog, self.keyboard


def step(screen: Screen, action: Action) -> Screen:
    """What an action should lead to."""
    match action:
        case "tab", page:
            return replace(screen, page=page, focus=False)
        case "switch", name:
            return replace(screen, switches=flip(screen.switches, SWITCHES.index(name)))
        case "row", name:
            return replace(screen, ticked=flip(screen.ticked, ROWS.index(name)))
        case "button", "add":
            return replace(screen, count=screen.count + 1)
        case "button", "reset":
            return replace(screen, dialog=True)
        case "dialog", answer:
            return replace(screen, dialog=False, count=0 if answer == "yes" else screen.count)
        case "field", _:
            return replace(screen, focus=True, keyboard="letters")
        case "key", letter:
            return replace(screen, text=screen.text + letter)
        case "hide", _:
            return replace(screen, focus=False, keyboard="")
    raise ValueError(f"no such action: {action}")


def flip(values: tuple[bool, ...], place: int) -> tuple[bool, ...]:
    return (*values[:place], not values[place], *values[place + 1 :])


def situation(rng: random.Random, kind: str) -> tuple[Screen, Action]:
    """A screen, and an action of that kind which it offers."""
    where = {"switch": "menu", "row": "list", "button": "home", "dialog": "home"}
    page = rng.choice(tuple(PAGES)) if kind == "tab" else where.get(kind, "find")
    typing = kind in ("key", "hide")
    screen = Screen(
        page,
        switches=tuple(rng.random() < 0.5 for _ in SWITCHES),
        ticked=tuple(rng.random() < 0.5 for _ in ROWS),
        count=rng.randint(1, 8),
        dialog=kind == "dialog",
        text="".join(rng.choices("".join(KEYS), k=rng.randrange(LONGEST))),
        focus=typing,
        keyboard="letters" if typing else "",
        clock=rng.randrange(24 * 60),
        battery=rng.randint(2, 4),
        dot=rng.random() < 0.5,
        cursor=rng.random() < 0.5,
        banner=rng.randrange(len(BANNERS)),
        dim=rng.random() < 0.5,
    )
    offered = {
        "tab": [name for name in PAGES if name != page],
        "switch": SWITCHES,
        "row": ROWS,
        "button": ("add", "reset"),
        "dialog": ("yes", "no"),
        "field": ("search",),
        "key": "".join(KEYS),
        "hide": ("keyboard",),
    }
    return screen, (kind, rng.choice(offered[kind]))


def spoken(action: Action) -> str:
    """The action in words."""
    kind, name = action
    if kind in ("button", "dialog"):
        return f"tap {name}"
    return {"key": f"type the letter {name}", "hide": "hide the keyboard"}.get(kind, f"tap the {name} {kind}")


def drift(rng: random.Random, screen: Screen, changes: int) -> Screen:
    """The screen with that many harmless changes, each in a different part of it."""
    parts = ["clock", "battery", "dot", "banner", "dim", "cursor"]
    if not (screen.page == "find" and screen.focus) or screen.keyboard == "high":
        parts.remove("cursor")  # it could not be seen
    for part in rng.sample(parts, changes):
        if part == "clock":
            screen = replace(screen, clock=(screen.clock + rng.randint(1, 3)) % (24 * 60))
        elif part == "battery":
            screen = replace(screen, battery=screen.battery - 1)
        elif part == "dot":
            screen = replace(screen, dot=not screen.dot)
        elif part == "cursor":
            screen = replace(screen, cursor=not screen.cursor)
        elif part == "dim":
            screen = replace(screen, dim=not screen.dim)
        else:
            screen = replace(screen, banner=(screen.banner + rng.randint(1, 2)) % len(BANNERS))
    return screen


def draw(screen: Screen) -> Image.Image:
    """The picture of a screen, RGB, SIZE."""
    canvas = Canvas(SIZE)
    width, height = SIZE
    hue = COLOURS[PAGES[screen.page]]
    canvas.box(0, 0, width, 13, PAPER)
    canvas.text(4, 6.5, f"{screen.clock // 60:02d}:{screen.clock % 60:02d}", 9, anchor="lm")
    if screen.dot:
        canvas.disc(82, 6.5, 3, COLOURS["yellow"])
    canvas.box(90, 3, 108, 10, None, 1.5, INK)
    canvas.box(91.5, 4.5, 91.5 + 3.75 * screen.battery, 8.5, INK)
    canvas.box(0, 13, width, 32, hue)
    canvas.text(8, 22.5, screen.page, 12, anchor="lm")
    canvas.box(4, 36, width - 4, 50, COLOURS[("cyan", "yellow", "white")[screen.banner]], 3)
    canvas.text(width / 2, 43, BANNERS[screen.banner], 9, PAPER)
    {"home": _home, "list": _list, "find": _find, "menu": _menu}[screen.page](canvas, screen)
    canvas.box(0, height - 20, width, height, PAPER)
    for place, page in enumerate(PAGES):
        middle = width / 4 * (place + 0.5)
        chosen = page == screen.page
        canvas.box(middle - 12, height - 17, middle + 12, height - 3, hue if chosen else LINE, 4)
        canvas.text(middle, height - 10, page, 8.5)
    if screen.keyboard:
        _keyboard(canvas, screen.keyboard)
    if screen.dialog:
        _dialog(canvas)
    picture = canvas.done()
    return picture.point(lambda value: value * 3 // 4) if screen.dim else picture


def _home(canvas: Canvas, screen: Screen) -> None:
    canvas.text(56, 66, str(screen.count), 30)  # above the dialog, which must not hide it
    for x, name, colour in ((30, "add", "green"), (82, "reset", "red")):
        canvas.box(x - 22, 104, x + 22, 124, COLOURS[colour], 6)
        canvas.text(x, 114, name, 11)


def _list(canvas: Canvas, screen: Screen) -> None:
    for place, (name, ticked) in enumerate(zip(ROWS, screen.ticked, strict=True)):
        y = 54 + 23 * place
        canvas.box(4, y, 108, y + 20, PAPER, 4)
        canvas.box(9, y + 4, 21, y + 16, COLOURS["green"] if ticked else GROUND, 3, INK)
        if ticked:
            canvas.line([(11.5, y + 10), (14, y + 13), (19, y + 7)], INK, 2)
        canvas.text(28, y + 10, name, 11, anchor="lm")


def _menu(canvas: Canvas, screen: Screen) -> None:
    for place, (name, on) in enumerate(zip(SWITCHES, screen.switches, strict=True)):
        y = 55 + 30 * place
        canvas.box(4, y, 108, y + 26, PAPER, 4)
        canvas.text(10, y + 13, name, 12, anchor="lm")
        canvas.box(72, y + 5, 104, y + 21, COLOURS["green"] if on else LINE, 8)
        canvas.disc(96 if on else 80, y + 13, 6.5, INK)


def _find(canvas: Canvas, screen: Screen) -> None:
    canvas.box(6, 56, 106, 76, INK, 5, COLOURS["yellow"] if screen.focus else INK)
    if screen.focus:
        canvas.box(6, 76, 106, 79, COLOURS["yellow"])
    canvas.text(12, 66, screen.text, 13, PAPER, anchor="lm")
    if screen.focus and screen.cursor:
        x = 13 + canvas.width(screen.text, 13)
        canvas.box(x, 59, x + 1.5, 73, COLOURS["black"])


def _keyboard(canvas: Canvas, kind: str) -> None:
    top = 50 if kind == "high" else 104
    canvas.box(0, top, 112, top + 64, PAPER)
    for row, keys in enumerate(DIGITS if kind == "digits" else KEYS):
        for column, key in enumerate(keys):
            x, y = 2 + 21.8 * column, top + 3 + 20.5 * row
            canvas.box(x, y, x + 19.8, y + 17.5, COLOURS["white"] if kind != "digits" else COLOURS["cyan"], 3)
            canvas.text(x + 10, y + 8.5, key, 11, PAPER)


def _dialog(canvas: Canvas) -> None:
    canvas.box(10, 82, 102, 138, INK, 6, PAPER)
    canvas.text(56, 97, "Start again?", 12, PAPER)
    for x, name, colour in ((34, "no", "red"), (78, "yes", "green")):
        canvas.box(x - 18, 113, x + 18, 131, COLOURS[colour], 5)
        canvas.text(x, 122, name, 11)
