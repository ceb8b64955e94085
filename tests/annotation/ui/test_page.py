"""The page in a real browser, over the backend of squares: `make test-ui`."""

from __future__ import annotations

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
pytest.importorskip("uvicorn", reason="needs uvicorn (extra `ui`)")

from helpers.backend_of_squares import SIZE  # noqa: E402
from helpers.page import BROWSER, CONTRAST, PHONE, WIDE, click, mask_of, settled  # noqa: E402

pytestmark = BROWSER


def test_all_tools_by_pointer_with_undo_redo_and_autosave(squares, page):
    assert "token" not in page.url
    page.keyboard.press("2")
    click(page, 1, 1)  # a part of 6 × 6
    settled(page)
    mask = np.full(SIZE, 255)
    mask[:6, :6] = 1
    np.testing.assert_array_equal(mask_of(page), mask)
    page.keyboard.press("b")
    page.keyboard.press("3")
    page.locator("#brush").fill("0")
    box = page.locator("#ink").bounding_box()
    step = box["width"] / SIZE[1]
    page.mouse.move(box["x"] + 8.5 * step, box["y"] + 8.5 * step)
    page.mouse.down()
    page.mouse.move(box["x"] + 12.5 * step, box["y"] + 8.5 * step)
    page.mouse.up()
    mask[8, 8:13] = 2
    settled(page)
    np.testing.assert_array_equal(mask_of(page), mask)
    page.keyboard.press("l")
    page.keyboard.press("1")
    for row, column in ((1, 9), (1, 13), (4, 13), (4, 9)):
        click(page, row, column)
    page.locator("#ink").press("Enter")
    settled(page)
    polygon = mask_of(page)
    assert (polygon[2:4, 9:13] == 0).all() and (polygon == 0).sum() <= 20
    page.keyboard.press("e")
    click(page, 8, 10)
    settled(page)
    assert mask_of(page)[8].tolist()[8:13] == [2, 2, 255, 2, 2]
    page.keyboard.press("f")
    page.keyboard.press("3")
    click(page, 2, 2)  # the whole part changes its class
    settled(page)
    filled = mask_of(page)
    assert (filled[:6, :6] == 2).all()
    for _ in range(3):
        page.keyboard.press("z")
    settled(page)
    np.testing.assert_array_equal(mask_of(page), mask)
    page.keyboard.press("Control+Shift+z")
    page.locator("#redo").click()
    page.keyboard.press("y")
    settled(page)
    np.testing.assert_array_equal(mask_of(page), filled)
    page.keyboard.press("r")
    settled(page)
    assert not (mask_of(page) == 255).any()


def test_by_keyboard_alone_from_the_address_to_finish(squares, page):
    """Tab to the image, paint parts, split one, draw with the brush, undo, go to the other exemplar."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "ink":
            break
    assert page.evaluate("document.activeElement.id") == "ink"
    for key in ("2", "Shift+ArrowLeft", "Shift+ArrowUp", "Space"):
        page.keyboard.press(key)
    settled(page)
    assert (mask_of(page)[:6, :6] == 1).all()
    page.keyboard.press("Shift+Space")
    page.wait_for_selector("body[data-splits='1']")
    for key in ("3", "Enter"):
        page.keyboard.press(key)
    settled(page)
    assert set(mask_of(page)[:6, :6].ravel().tolist()) == {1, 2}
    for key in ("b", ",", ",", "Shift+ArrowRight", "Space", "ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    settled(page)
    painted = mask_of(page)
    assert painted[0, 8:11].tolist() == [2, 2, 2] and painted[0, 11] == 255
    page.keyboard.press("z")
    settled(page)
    assert mask_of(page)[0, 8] == 255
    assert "Row 1, column 11" in page.locator("#spot").text_content()
    page.keyboard.press("n")
    sync_api.expect(page.locator("#strip button").nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_fits_the_screen_is_legible_and_named(squares, page, viewport):
    page.set_viewport_size(viewport)
    page.keyboard.press("2")
    click(page, 1, 1)
    page.wait_for_selector("#samples .card")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    rows = page.evaluate(CONTRAST)
    assert len(rows) > 30
    assert [row for row in rows if row[0] < 4.5] == []
    # In one go: a refit that ends meanwhile replaces the proposals' buttons.
    small = page.evaluate(
        "[...document.querySelectorAll('button, input:not([type=checkbox]), select')].filter(e => e.checkVisibility())"
        ".map(e => [e.id || e.textContent, e.getBoundingClientRect()])"
        ".filter(([name, box]) => box.width < 24 || box.height < 24).map(([name]) => name)"
    )
    assert small == []
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas[tabindex]')].filter(e => "
        "!(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length))).length"
    )
    assert nameless == 0
    stage = page.locator("#ink").bounding_box()
    assert stage["width"] >= 250 and stage["x"] >= 0 and stage["x"] + stage["width"] <= viewport["width"]
    if viewport == WIDE:
        assert page.evaluate("document.documentElement.scrollHeight") <= viewport["height"]
    page.keyboard.press("+")
    assert page.locator("#ink").bounding_box()["width"] > stage["width"] * 1.4


def test_proposals_show_confidence_and_can_be_taken(squares, page):
    page.keyboard.press("2")
    click(page, 1, 1)
    card = page.locator("#samples .card").first
    sync_api.expect(card).to_contain_text("78 % sure")
    sync_api.expect(page.locator("#advice .tip")).to_contain_text("it is far away")
    page.locator("#here button").click()
    sync_api.expect(page.locator("#rest")).to_be_disabled()  # nothing left: the proposal came and is on disk
    taken = mask_of(page)
    assert (taken[:6, :6] == 1).all() and (taken[6:] == 2).all()
    page.locator("#advice .tip button").click()
    sync_api.expect(page.locator("#strip button")).to_have_count(3)


def test_a_proposal_that_comes_late_is_not_painted_into_another_image(squares, page):
    page.keyboard.press("2")
    click(page, 1, 1)
    settled(page)
    before, other, held = mask_of(page), mask_of(page, 1), []
    page.route("**/api/proposal/*/labels*", lambda route: held.append(route))
    page.locator("#here button").click()
    page.locator("#strip button").nth(1).click()
    page.wait_for_selector("body[data-ready='1']")
    held[0].continue_()
    sync_api.expect(page.locator("#spot")).to_contain_text("another image is shown")
    settled(page)
    np.testing.assert_array_equal(mask_of(page), before)
    np.testing.assert_array_equal(mask_of(page, 1), other)


@pytest.mark.parametrize("ask", ["api/parts/0/2", "api/mask/1", "api/image/1"])
def test_what_cannot_be_fetched_is_said_and_can_be_asked_again(squares, page, ask):
    page.route(f"**/{ask}*", lambda route: route.abort())
    page.locator("#strip button").nth(1).click() if ask.endswith("1") else page.locator("#detail").select_option("2")
    sync_api.expect(page.locator("#spot")).to_contain_text("No answer from gansegctl")
    page.unroute(f"**/{ask}*")
    page.locator("#strip button").nth(1).click()
    page.wait_for_selector("body[data-ready='1']")


def test_strokes_held_in_the_browser_survive_a_reload(squares, page):
    page.route("**/api/strokes", lambda route: route.abort())
    page.keyboard.press("2")
    click(page, 1, 1)
    click(page, 8, 8)
    sync_api.expect(page.locator("#saved")).to_contain_text("2 strokes held")
    page.unroute("**/api/strokes")
    page.reload()
    page.wait_for_selector("body[data-parts]")
    settled(page)
    mask = mask_of(page)
    assert (mask[:6, :6] == 1).all() and mask[8, 8] == 1 and page.locator("#undo").is_enabled()
