"""The page in a headless Chromium that reaches nothing but it: `pytest -m browser`."""

import re
import shutil

import pytest
from PIL import Image

from tests.pages import ANSWER, Parrot, serving
from tests.test_training import GRPO, grpo
from vlmr1.playground.asking import Local
from vlmr1.playground.command import LOOPBACK
from vlmr1.playground.rollouts import Run
from vlmr1.playground.server import page
from vlmr1.sample import write_jsonl

pytestmark = pytest.mark.browser
PATIENCE = 60_000  # ms


@pytest.fixture(scope="module")
def chromium():
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with driver.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except driver.Error as error:
            pytest.skip(f"no Chromium starts here: {error}")
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
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

        context = chromium.new_context(viewport={"width": width, "height": 900}, **more)
        context.route("**/*", let)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(address)
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


def test_a_real_picture_goes_in_and_a_box_comes_out_drawn(opened, trained):
    checkpoint, source = trained
    sample = source.samples[1]
    tab = opened(page([Local("tiny", checkpoint)], None, LOOPBACK))
    tab.set_input_files("#file", source.picture(sample))
    tab.fill("#text", re.search(r"describes: (.*)\.", sample.problem)[1])
    tab.fill("#truth", sample.solution)
    ask(tab)
    assert tab.locator("#answers .box.true").count() == 1
    said = [float(v) for v in re.findall(r"[-\d.]+", tab.inner_text("#answers td:has-text('[')"))]
    drawn = place(tab, "#answers .box.said", "#answers .frame")
    assert drawn == pytest.approx([v / side for v, side in zip(said, sample.sizes[0] * 2, strict=True)], abs=0.03)
    assert "IoU" in tab.inner_text("#answers table >> nth=1")


def test_boxes_stand_on_the_stored_pixels_of_a_turned_photo(opened, tmp_path):
    turned = Image.Exif()
    turned[274] = 6  # a quarter turn, as telephones note it; models see the pixels as they are stored
    Image.new("RGB", (400, 100), "navy").save(tmp_path / "a.jpg", exif=turned)
    tab = opened(page([Parrot()], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.jpg")
    tab.fill("#text", "the cat")
    ask(tab)
    assert "400 × 100" in tab.inner_text("#pictures figcaption")
    for frame in ("#pictures .frame", "#answers .frame"):
        shown = tab.locator(frame).bounding_box()
        assert shown["width"] / shown["height"] == pytest.approx(4, rel=0.02)
    assert place(tab, "#answers .box.said", "#answers .frame") == pytest.approx([0.025, 0.2, 0.125, 0.6], abs=0.02)


def test_two_answers_side_by_side_with_labels_complaints_and_rewards(opened, tmp_path):
    Image.new("RGB", (200, 100), "navy").save(tmp_path / "a.jpg")
    models = [Parrot(ANSWER), Parrot("<answer>[1, 2</answer>")]
    tab = opened(page(models, None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.jpg")
    tab.fill("#text", "the cat")
    ask(tab)
    first, second = tab.locator(".answer").all()
    assert first.locator(".box.said span").inner_text() == "cat" and "I look for it." in first.inner_text()
    assert second.locator(".box.said").count() == 0 and second.locator(".problems li").count() >= 1
    boxes = [one.bounding_box() for one in (first, second)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] > boxes[0]["x"]


def test_a_truth_is_drawn_by_pointer_and_by_keyboard(opened, tmp_path):
    Image.new("RGB", (100, 100), "navy").save(tmp_path / "a.png")
    tab = opened(page([Parrot()], None, LOOPBACK))
    tab.click("#draw")
    assert "no picture to draw on" in tab.inner_text("#fault")
    tab.set_input_files("#file", tmp_path / "a.png")
    frame = tab.locator("#pictures .frame")
    frame.wait_for()
    tab.locator("#draw").press("Enter")
    frame.dispatch_event("pointerdown", {"pointerId": 1, "clientX": 0, "clientY": 0})
    frame.dispatch_event("pointercancel", {"pointerId": 1})
    frame.dispatch_event("pointermove", {"pointerId": 1, "clientX": 900, "clientY": 900})
    assert tab.input_value("#truth") == "" and tab.locator("#pictures .box").count() == 0
    at = frame.bounding_box()
    tab.mouse.move(at["x"] + 0.1 * at["width"], at["y"] + 0.2 * at["height"])
    tab.mouse.down()
    tab.mouse.move(at["x"] + 0.5 * at["width"], at["y"] + 0.6 * at["height"], steps=4)
    tab.mouse.up()
    assert tab.input_value("#truth") == "[10,20,50,60]"
    assert place(tab, "#pictures .box.true", "#pictures .frame") == pytest.approx([0.1, 0.2, 0.5, 0.6], abs=0.02)
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Shift+ArrowDown")
    tab.keyboard.press("Escape")
    assert tab.input_value("#truth") == "[37,35,67,67]" and tab.get_attribute("#draw", "aria-pressed") == "false"


def test_everything_by_keyboard_on_a_narrow_screen_in_the_dark(opened):
    tab = opened(page([Parrot()], None, LOOPBACK), 400, color_scheme="dark")
    tab.wait_for_selector("#example option >> nth=3", state="attached")
    for _ in range(10):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "example":
            break
    tab.keyboard.press("ArrowDown")
    tab.wait_for_selector("#pictures .box.true", state="attached")
    tab.focus("#text")
    tab.keyboard.press("Control+Enter")
    tab.wait_for_selector("#state:text-is('answered')")
    assert tab.locator("#answers .box.said").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", ground))) < 120


def test_a_long_answer_streams_and_stops(opened, tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    parrot = Parrot(" ".join(["word"] * 5000), wait=0.02)
    tab = opened(page([parrot], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.png")
    tab.fill("#text", "the cat")
    tab.click("#go")
    tab.wait_for_selector(".answer pre:has-text('word word word')")
    early = len(tab.inner_text(".answer pre"))
    tab.wait_for_timeout(500)
    assert len(tab.inner_text(".answer pre")) > early
    tab.click("#stop")
    tab.wait_for_selector("#state:text-is('stopped')")
    assert parrot.stopped.wait(5)


def test_an_answer_is_shown_as_it_was_asked_and_new_pictures_stop_it(opened, tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    parrot = Parrot(" ".join([*["word"] * 40, ANSWER]), wait=0.02)
    tab = opened(page([parrot], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.png")
    tab.fill("#text", "the cat")
    tab.click("#go")
    tab.wait_for_selector(".answer pre:has-text('word word')")
    tab.fill("#text", "another thing")
    tab.wait_for_selector("#state:text-is('answered')")
    assert tab.inner_text(".answer pre") == parrot.text
    assert tab.inner_text("#answers .box.said span") == "cat" and not parrot.stopped.is_set()
    tab.click("#go")
    tab.wait_for_selector(".answer pre:has-text('word word')")
    tab.select_option("#task", "ovd")
    tab.wait_for_selector("#state:text-is('stopped')")
    assert parrot.stopped.wait(5)


def test_a_fault_is_shown_in_its_sentence(opened, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    tab = opened(page([Parrot()], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.png")
    tab.wait_for_selector("#fault:has-text('no picture')")
    Image.new("RGB", (50, 50)).save(tmp_path / "b.png")
    tab.set_input_files("#file", tmp_path / "b.png")
    tab.fill("#text", "the cat")
    tab.fill("#truth", "[1, 2]")
    ask(tab, "no answer")
    assert "the truth: solution" in tab.inner_text(".answer .fault")


def test_rollouts_are_filtered_walked_through_and_asked_again(opened, trained, tmp_path):
    settings = GRPO.model_copy(update={"steps": 2, "save_steps": 2})
    grpo(trained, tmp_path / "work", settings=settings).run()
    write_jsonl(tmp_path / "work/alarms.jsonl", [{"step": 1, "kind": "boxes", "message": "since step 1 boxes 1 -> 9"}])
    tab = opened(page([Parrot()], Run(tmp_path, trained[1].images), LOOPBACK))
    tab.click("#to-rollouts")
    assert tab.locator("#filters").is_visible()
    tab.wait_for_selector("#group table")
    assert tab.locator("#groups li").count() == 4 and "boxes 1 -> 9" in tab.inner_text("#curve")
    tab.wait_for_selector("#group .box.true", state="attached")
    first = tab.inner_text("#group h2")
    tab.focus("#groups li:first-child button")
    tab.keyboard.press("ArrowDown")
    tab.wait_for_selector(f"#group h2:not(:text-is('{first}'))")
    held, hold = [], lambda route: held.append(route)
    tab.route("**/rollouts/group/2", hold)  # its answer comes after that to a later question
    tab.click("#groups li:nth-child(3) button")
    tab.click("#groups li:nth-child(4) button")
    fourth = tab.evaluate("fetch('rollouts/group/3').then((reply) => reply.json())")
    shown = f"#group h2:text-is('Step {fourth['step']}, {fourth['source']} {fourth['id']}')"
    tab.wait_for_selector(shown)
    with tab.expect_response("**/rollouts/group/2"):
        held[0].continue_()
    tab.wait_for_timeout(100)
    assert tab.locator(shown).count() == 1
    tab.fill("#filters [name=first]", "2")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found:text-is('no such group')")
    tab.fill("#filters [name=first]", "")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#group table")
    tab.click("text=Ask this")
    tab.wait_for_selector("#pictures .box.true", state="attached")
    assert tab.input_value("#truth").startswith("[0")
    narrow = opened(page([], Run(tmp_path, trained[1].images), LOOPBACK), 400)
    narrow.wait_for_selector("#group table")
    assert not narrow.locator("#filters").is_visible()
    narrow.click("#fold summary")
    assert narrow.locator("#filters").is_visible()
    assert narrow.evaluate("document.documentElement.scrollWidth") == 400
