"""A training's rollouts on the page, its addresses and its narrowest, in a headless Chromium: `pytest -m browser`."""

import pytest

from tests.browsing import ask, chromium, opening
from tests.pages import Parrot
from tests.test_training import GRPO, grpo
from vlmr1.playground.command import LOOPBACK
from vlmr1.playground.rollouts import Run
from vlmr1.playground.server import page
from vlmr1.sample import write_jsonl

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser):
    with opening(browser) as open_:
        yield open_


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
    tab.route("**/rollouts/group/3", hold)  # its answer comes after that to a later question
    tab.click("#groups li:nth-child(3) button")
    tab.click("#groups li:nth-child(4) button")
    fourth = tab.evaluate("fetch('rollouts/group/4').then((reply) => reply.json())")
    shown = f"#group h2:text-is('Step {fourth['step']}, question {fourth['id']} of {fourth['source']}')"
    tab.wait_for_selector(shown)
    with tab.expect_response("**/rollouts/group/3"):
        held[0].continue_()
    tab.wait_for_timeout(100)
    assert tab.locator(shown).count() == 1
    tab.fill("#filters [name=first]", "2")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found:text-is('No group has a step from 2 on; change that, or reset the filters.')")
    tab.fill("#filters [name=last]", "1")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found:has-text('steps: from 2 to 1 is nothing; swap the two')")
    tab.click("#filters [type=reset]")
    tab.wait_for_selector("#group table")
    assert tab.input_value("#filters [name=first]") == "" and "first" not in tab.url
    tab.click("text=Ask this")
    tab.wait_for_selector("#pictures .box.true", state="attached")
    assert tab.input_value("#truth").startswith("[0")


@pytest.fixture(scope="module")
def ran(trained, tmp_path_factory):
    """The folder of a short training."""
    folder = tmp_path_factory.mktemp("run")
    settings = GRPO.model_copy(update={"steps": 2, "save_steps": 2})
    grpo(trained, folder / "work", settings=settings).run()
    return folder


def test_the_address_keeps_view_group_and_filters(opened, ran, trained):
    tab = opened(page([Parrot()], Run(ran, trained[1].images), LOOPBACK))
    tab.click("#to-rollouts")
    tab.wait_for_selector("#groups [data-number='1'][aria-current]")
    tab.click("#groups [data-number='3']")
    tab.wait_for_selector("#groups [data-number='3'][aria-current]")
    assert "view=rollouts" in tab.url and "group=3" in tab.url
    tab.reload()
    tab.wait_for_selector("#groups [data-number='3'][aria-current]")
    assert tab.locator("#rollouts").is_visible() and tab.title().startswith("Rollouts")
    tab.go_back()
    tab.wait_for_selector("#groups [data-number='1'][aria-current]")
    tab.select_option("#filters [name=order]", "lowest")
    tab.fill("#filters [name=last]", "1")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found:text-is('4 of 4 groups')")
    shared = tab.url
    tab.go_back()
    assert tab.input_value("#filters [name=last]") == ""
    tab.goto(shared)
    tab.wait_for_selector("#group table")
    assert [tab.input_value(f"#filters [name={name}]") for name in ("order", "last")] == ["lowest", "1"]
    tab.click("text=Ask this")
    tab.wait_for_selector("#pictures img")
    tab.go_back()
    assert tab.locator("#rollouts").is_visible()
    tab.goto(shared.partition("?")[0] + "?view=rollouts&group=99")
    tab.wait_for_selector("#group .fault:has-text('group 99: the run has groups 1 to 4')")


@pytest.mark.parametrize("width", [340, 400])
def test_nothing_is_wider_than_a_narrow_screen(opened, ran, trained, width):
    wide = "document.documentElement.scrollWidth"
    cut = """[...document.querySelectorAll('main:not([hidden]) :is(td, p, h2, code, label)')]
             .filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth).length"""
    tab = opened(page([Parrot(), Parrot("no box")], Run(ran, trained[1].images), LOOPBACK), width)
    tab.wait_for_selector("#example option >> nth=3", state="attached")
    tab.select_option("#example", "3")
    tab.wait_for_selector("#pictures .box.true", state="attached")
    ask(tab)
    tab.click("#draw")
    assert (tab.evaluate(wide), tab.evaluate(cut)) == (width, 0)
    tab.click("#to-rollouts")
    tab.wait_for_selector("#group table")
    assert not tab.locator("#filters").is_visible()  # the groups come first
    assert (tab.evaluate(wide), tab.evaluate(cut)) == (width, 0)
    tab.click("#fold summary")
    assert tab.locator("#filters").is_visible()
    assert (tab.evaluate(wide), tab.evaluate(cut)) == (width, 0)
