"""A browser, a page in it, and the page over the backend of squares."""

from __future__ import annotations

import re

import pytest
from helpers.backend_of_squares import blank_masks


@pytest.fixture(scope="module")
def browser():
    """Imported here: the other tests of this folder need neither playwright nor a browser."""
    from helpers.page import CHROMIUM
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page that notes what goes wrong and where requests go."""
    from helpers.page import WIDE

    opened = browser.new_context(viewport=WIDE).new_page()
    opened.troubles, opened.hosts = [], set()
    opened.on("pageerror", lambda e: opened.troubles.append(str(e)))
    opened.on("request", lambda r: opened.hosts.add(re.sub(r"^(\w+://[^/:]*).*", r"\1", r.url)))
    opened.on("console", lambda m: "Content Security Policy" in m.text and opened.troubles.append(m.text))
    yield opened
    opened.context.close()
    assert opened.troubles == []
    assert opened.hosts == {"http://127.0.0.1"}  # no request leaves the machine


@pytest.fixture
def squares(tmp_path, page):
    """The page over the backend of squares, opened."""
    from helpers.page_server import Served

    blank_masks(tmp_path)
    served = Served(tmp_path)
    page.goto(served.url)
    page.wait_for_selector("body[data-parts]")
    yield served
    served.finish()
