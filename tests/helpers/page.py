"""What the tests of the annotation page do in a browser: clicks, waits, screenshots."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from helpers.backend_of_squares import SIZE
from PIL import Image
from playwright import sync_api

from gansegctl.annotation.ui.mask_history import decode

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)"),
]
"""The marks of a module whose tests open a page."""
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def settled(page):
    sync_api.expect(page.locator("#saved")).to_have_text("All strokes are on disk", timeout=30_000)


def mask_of(page, place=0, size=SIZE):
    runs = page.evaluate("async place => (await (await fetch(`/api/mask/${place}`)).json()).mask", place)
    return decode(runs, size[0] * size[1]).reshape(size)


def click(page, row, column, size=SIZE, **options):
    box = page.locator("#ink").bounding_box()
    x, y = box["x"] + (column + 0.5) * box["width"] / size[1], box["y"] + (row + 0.5) * box["height"] / size[0]
    if options.pop("shift", False):
        page.keyboard.down("Shift")
        page.mouse.click(x, y)
        page.keyboard.up("Shift")
    else:
        page.mouse.click(x, y, **options)


def refitted(page):
    """Wait until the proposals on the page are those of the last stroke."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        news = page.evaluate("async () => (await fetch('/api/proposals')).json()")
        if not news["pending"] and news["proposals"] and news["proposals"]["revision"] == news["revision"]:
            break
        page.wait_for_timeout(300)
    sync_api.expect(page.locator("#refit")).to_have_text(re.compile("^Refitted: "), timeout=30_000)
    page.evaluate("Promise.all([...document.images].map((i) => i.decode()))")


def keep(page, name, **options):
    """A screenshot for the documentation, when asked for: few colours, small."""
    folder = os.environ.get("GANSEGCTL_IMAGES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        image = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
        image.quantize(160).save(Path(folder) / f"annotate-ui-{name}.png", optimize=True)


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const rows = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest("option")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
    rows.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walk.currentNode.data.trim()]);
  }
  return rows;
}"""
"""Of every text that is visible: its contrast with what lies behind it, and the text."""
