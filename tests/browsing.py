"""Shared by the tests of the page in a headless Chromium that reaches nothing but it."""

import shutil
from contextlib import contextmanager

import pytest

from tests.pages import serving

PATIENCE = 60_000  # ms


@contextmanager
def chromium():
    """A browser; skips the tests where none can be had."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with driver.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except driver.Error as error:
            pytest.skip(f"no Chromium starts here: {error}")
        yield browser
        browser.close()


@contextmanager
def opening(browser):
    """Gives a function that serves an application and opens it; fails on requests elsewhere and on faulty scripts."""
    wrong, contexts = [], []

    def open_(app, width=1200, **more):
        address = serve(app)

        def let(route):
            if not route.request.url.startswith((address, "data:", "blob:")):
                wrong.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        context.route("**/*", let)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(address)
        tab.wait_for_selector("main:visible")  # from when on it listens
        return tab

    with serving() as serve:
        yield open_
        for context in contexts:
            context.close()
    assert not wrong


def ask(tab, said="answered"):
    tab.click("#go")
    tab.wait_for_selector(f"#state:text-is('{said}')")


def place(tab, selector, frame):
    """Corners of an element as shares of its frame's sides."""
    inner, outer = tab.locator(selector).bounding_box(), tab.locator(frame).bounding_box()
    left, top = (inner["x"] - outer["x"]) / outer["width"], (inner["y"] - outer["y"]) / outer["height"]
    return [left, top, left + inner["width"] / outer["width"], top + inner["height"] / outer["height"]]
