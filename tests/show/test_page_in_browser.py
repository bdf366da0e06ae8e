"""The page as Chromium shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

from saddlepoint.paper import write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium")

PGD = "#table-accuracy tbody tr:nth-child(7) td:last-child button"  # PGD on the wide PGD network
CARD = f'document.querySelector("{PGD}").nextElementSibling'
SHOWN = "document.querySelectorAll('.detail:popover-open').length"


@pytest.fixture(scope="module")
def index(report: Path) -> Path:
    return write_page(report)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def draw_all(browser: Browser) -> None:
    """Panels are drawn when they come near the screen."""
    height = browser.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height, 800):
        browser.evaluate(f"scrollTo(0, {top})")
        browser.evaluate("new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))")
    browser.wait_for("[...document.querySelectorAll('.panel')].every(panel => panel.querySelector('.main-svg'))")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_everything_is_drawn_without_a_complaint_and_nothing_overflows(
    browser: Browser, index: Path, width: int, height: int, dark: bool
) -> None:
    browser.open(index, width, height, dark=dark, touch=width < 500)
    draw_all(browser)
    assert browser.complaints == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("document.title").startswith("mnist:")  # no planted script has changed it
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "about"}
    assert {url for url in browser.requests if url.startswith("file")} == {index.resolve().as_uri()}
    # wide tables and charts stay in their boxes
    boxes = "[...document.querySelectorAll('.scroll, .panels, .panel .main-svg, img, .missing')]"
    assert browser.evaluate(f"{boxes}.every(box => box.getBoundingClientRect().right <= innerWidth + 1)")
    ink = browser.evaluate("getComputedStyle(document.body).color")
    assert ink == ("rgb(228, 226, 221)" if dark else "rgb(27, 27, 27)")


def test_the_charts_have_their_series(browser: Browser, index: Path) -> None:
    browser.open(index, 1280, 900)
    draw_all(browser)
    lines = "document.querySelectorAll('#figure-loss_trajectories .panel:first-child .scatterlayer .js-line').length"
    assert browser.evaluate(lines) == 2 * 12
    assert browser.evaluate("document.querySelectorAll('#figure-capacity path.yerror').length") == 4
    assert browser.evaluate("document.querySelectorAll('#figure-loss_histograms .bars .point').length") >= 3 * 25
    assert (
        browser.evaluate("document.querySelectorAll('#figure-filters .hm image, #figure-filters .im image').length")
        == 18
    )


def test_hovering_over_a_point_shows_its_numbers(browser: Browser, index: Path) -> None:
    browser.open(index, 1280, 900)
    browser.centre("#figure-capacity .panel")
    browser.wait_for("document.querySelector('#figure-capacity .main-svg .point')")
    browser.centre("#figure-capacity .panel")
    point = "document.querySelectorAll('#figure-capacity .panel:first-child .trace:first-child .point')[2]"
    x, y = browser.evaluate(
        f"(box => [box.x + box.width / 2, box.y + box.height / 2])({point}.getBoundingClientRect())"
    )
    browser.mouse(x, y)
    browser.wait_for("document.querySelector('#figure-capacity .hovertext')")
    text = browser.evaluate("document.querySelector('#figure-capacity .hoverlayer').textContent")
    assert "(4, 87.5)" in text and "84.5 to 89.5" in text and "ours" in text


def test_hovering_over_a_number_shows_what_is_behind_it(browser: Browser, index: Path) -> None:
    browser.open(index, 1280, 900)
    x, y = browser.centre(PGD)
    assert browser.evaluate(SHOWN) == 0
    browser.mouse(x, y)
    assert browser.evaluate(SHOWN) == 1
    text = browser.evaluate(f"{CARD}.innerText")
    for part in ("93.95", "93.465632 to 94.400615", "93.2", "0.75", "python scripts/accuracy_table.py dataset=mnist"):
        assert part in text
    assert browser.evaluate(f"{CARD}.querySelector('a').href").endswith(
        "/outputs/mnist/wide-pgd-fast/seed0/results/last-pgd.json"
    )
    box = browser.evaluate(f"(box => [box.left, box.top, box.right, box.bottom])({CARD}.getBoundingClientRect())")
    assert min(box) >= 0 and box[2] <= 1280 and box[3] <= 900
    browser.mouse(5, 5)
    assert browser.evaluate(SHOWN) == 0


def test_a_click_keeps_it_until_escape_or_a_click_elsewhere(browser: Browser, index: Path) -> None:
    browser.open(index, 1280, 900)
    for leave in (lambda: browser.press("Escape", 27), lambda: browser.mouse(5, 5, click=True)):
        browser.mouse(*browser.centre(PGD), click=True)
        browser.mouse(5, 5)
        assert browser.evaluate(SHOWN) == 1
        assert browser.evaluate(f"document.querySelector('{PGD}').ariaExpanded") == "true"
        leave()
        assert browser.evaluate(SHOWN) == 0
        assert browser.evaluate(f"document.querySelector('{PGD}').ariaExpanded") == "false"


def test_the_keyboard_reaches_numbers_and_their_files(browser: Browser, index: Path) -> None:
    browser.open(index, 1280, 900)
    browser.evaluate(f"document.querySelector('{PGD}').closest('.scroll').focus()")
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.matches('#table-accuracy button.cell')")
    assert browser.evaluate(SHOWN) == 1
    first = browser.evaluate("document.activeElement.getAttribute('aria-controls')")
    browser.press("Tab", 9)  # that cell was not run and has no files
    assert browser.evaluate("document.activeElement.getAttribute('aria-controls')") != first
    assert browser.evaluate(SHOWN) == 1
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.matches('.detail:popover-open a')")
    browser.press("Tab", 9)
    assert browser.evaluate(SHOWN) == 1 and browser.evaluate("document.activeElement.matches('button.cell')")


def test_a_tap_opens_a_sheet_that_leaves_the_number_in_sight(browser: Browser, index: Path) -> None:
    browser.open(index, 390, 844, touch=True)
    x, y = browser.centre(PGD)
    browser.tap(x, y)
    browser.wait_for(f"{SHOWN} == 1")
    sheet, cell = (
        browser.evaluate(f"(box => [box.left, box.top, box.right, box.bottom])({element}.getBoundingClientRect())")
        for element in (CARD, f'document.querySelector("{PGD}")')
    )
    assert (sheet[0], sheet[2], sheet[3]) == (0, 390, 844)
    assert cell[3] <= sheet[1]
    browser.tap(200, 30)
    browser.wait_for(f"{SHOWN} == 0")


def test_on_paper_there_are_pictures_and_all_of_each_table(browser: Browser, index: Path) -> None:
    browser.open(index, 1280, 900, dark=True)
    assert browser.pdf().startswith(b"%PDF")
    browser.send("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll({!r})].filter(each => each.checkVisibility()).length"
    browser.wait_for(f"{shown.format('img.picture')} == 1")
    assert browser.evaluate(shown.format(".panels, .detail, .legend")) == 0
    assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(27, 27, 27)"


def test_without_scripts_there_are_pictures(browser: Browser, index: Path) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(index, 390, 844)
        assert browser.evaluate("document.querySelector('img.picture').checkVisibility()")
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
