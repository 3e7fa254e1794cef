"""Asking on the page, in a headless Chromium: `pytest -m browser`."""

import io
import re

import pytest
from PIL import Image

from tests.browsing import ask, chromium, opening, place
from tests.pages import ANSWER, Parrot
from vlmr1.playground.asking import Local
from vlmr1.playground.command import LOOPBACK
from vlmr1.playground.server import page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser):
    with opening(browser) as open_:
        yield open_


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
    assert "no picture to draw on" in tab.inner_text("#file-fault")
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
    for keys, truth in {
        "ArrowRight": "[12,20,52,60]",  # what was drawn moves by a fiftieth of the side
        "Shift+ArrowDown": "[12,20,52,62]",
        "Alt+ArrowLeft": "[11,20,51,62]",
        "Alt+Shift+ArrowUp": "[11,20,51,61]",
    }.items():
        tab.keyboard.press(keys)
        assert tab.input_value("#truth") == truth
    tab.keyboard.press("Escape")
    assert tab.get_attribute("#draw", "aria-pressed") == "false" and not tab.locator("#drawing").is_visible()


def test_keys_move_a_typed_truth_and_lose_none(opened, tmp_path):
    Image.new("RGB", (100, 100), "navy").save(tmp_path / "a.png")
    tab = opened(page([Parrot()], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.png")
    tab.locator("#pictures .frame").wait_for()

    def pressed(truth, *keys):
        tab.fill("#truth", truth)
        tab.locator("#draw").press("Enter")
        assert tab.locator("#drawing kbd").count() > 5 and tab.locator("#drawing").is_visible()
        for one in keys:
            tab.keyboard.press(one)
        found = tab.input_value("#truth")
        if tab.get_attribute("#draw", "aria-pressed") == "true":
            tab.locator("#draw").press("Enter")
        return found

    assert pressed("[1, 2.5, 30, 40]", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowLeft") == "[0,2.5,29,40]"
    assert pressed("", "ArrowUp", "ArrowUp") == "[35,33,65,63]"  # where there is none, one appears
    assert pressed("[1, 2", "ArrowUp") == "[1, 2" and "cannot be read" in tab.inner_text("#truth-fault")
    tab.select_option("#task", "ovd")
    tab.fill("#text", "cat, dog")
    cat = '[{"bbox_2d": [1, 2, 30, 40], "label": "dog", "iscrowd": 0}]'
    moved = '{"bbox_2d":[3,2,32,40],"label":"dog","iscrowd":0}'
    assert pressed(cat, "ArrowRight") == f"[{moved}]"
    added = '{"bbox_2d":[35,35,65,65],"label":"cat"}'
    assert pressed(f"```json\n[{moved}]\n```", "Enter") == f"[{moved},{added}]"
    assert tab.locator("#pictures .box.true span").all_inner_texts() == ["dog", "cat"]
    assert pressed(f"[{moved},{added}]", "Delete") == f"[{moved}]"


def test_an_answer_that_equals_the_truth_is_seen_beside_it(opened, tmp_path):
    Image.new("RGB", (100, 80), "navy").save(tmp_path / "a.png")
    tab = opened(page([Parrot()], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.png")
    tab.fill("#text", "the cat")
    tab.fill("#truth", "[10, 20, 50, 60]")
    ask(tab)
    shown = Image.open(io.BytesIO(tab.locator("#answers .frame").screenshot())).convert("RGB")
    side = shown.width * 0.4
    for colour in ((0, 128, 43), (209, 26, 42)):
        assert sum(pixel == colour for pixel in shown.get_flattened_data()) > 2 * side


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


def test_a_fault_is_shown_once_and_at_its_field(opened, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    tab = opened(page([Parrot(), Parrot()], None, LOOPBACK))
    tab.set_input_files("#file", tmp_path / "a.png")
    tab.wait_for_selector("#file-fault:has-text('no picture')")
    Image.new("RGB", (50, 50)).save(tmp_path / "b.png")
    tab.set_input_files("#file", tmp_path / "b.png")
    tab.fill("#text", "the cat")
    assert tab.locator(".fault:visible").count() == 0
    tab.fill("#truth", "[1, 2]")
    ask(tab, "not asked")
    assert tab.locator(".fault:visible").all_inner_texts() == ["'[1, 2]' is not [x0, y0, x1, y1], nor None."]
    assert tab.evaluate("document.activeElement.id") == "truth" and tab.locator(".answer").count() == 0
    assert tab.get_attribute("#truth", "aria-describedby") == "truth-fault"
    tab.fill("#truth", "[1, 2, 3, 4]")
    assert tab.locator(".fault:visible").count() == 0
    tab.evaluate("document.getElementById('longest').value = '99999'")  # in a part that is folded
    ask(tab, "not asked")
    assert tab.inner_text("#longest-fault") == "A whole number from 1 to 4,096 is needed."
    tab.select_option("#task", "gui")
    tab.set_input_files("#file", [tmp_path / "b.png"])  # the second of the pair
    tab.wait_for_selector("#pictures figure >> nth=1")
    tab.select_option("#task", "rec")
    tab.fill("#longest", "64")
    ask(tab, "not asked")
    assert tab.inner_text("#file-fault") == "The task rec takes one picture; 2 are here."
