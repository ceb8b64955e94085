"""The page in a real browser: `make test-ui`. With GANSEGCTL_IMAGES=docs/images its images are kept there."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
pytest.importorskip("uvicorn", reason="needs uvicorn (extra `ui`)")

from annotation.ui.clicks import confusion_of, mean_iou, plan  # noqa: E402
from annotation.ui.desk_of_squares import SIZE, blank_masks  # noqa: E402
from annotation.ui.served import Served  # noqa: E402

from gansegctl import presets  # noqa: E402
from gansegctl.annotation.ui.mask_history import decode  # noqa: E402
from gansegctl.config import GenerateSettings  # noqa: E402
from gansegctl.pipeline.annotate.regions import find_parts, part_features, split_part  # noqa: E402
from gansegctl.pipeline.annotate.source import Source  # noqa: E402
from gansegctl.pipeline.generate.stage import plan_generate, synthesize  # noqa: E402
from gansegctl.store.dataset import iter_shards  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)"),
]
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SEED, SIDE, BUDGET = 3, 64, 40
SAMPLES = int(os.environ.get("GANSEGCTL_UI_SAMPLES", "40"))


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page that notes what goes wrong and where requests go."""
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
    """The page over the desk of squares, opened."""
    blank_masks(tmp_path)
    served = Served(tmp_path)
    page.goto(served.url)
    page.wait_for_selector("body[data-parts]")
    yield served
    served.finish()


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
    sync_api.expect(page.locator("#spot")).to_contain_text("another image is on the easel")
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


class Command:
    """`gansegctl annotate DIR --ui` in a process of its own."""

    def __init__(self, folder):
        self.errors = (folder.parent / "stderr.txt").open("w+")
        line = [sys.executable, "-m", "gansegctl", "annotate", folder, "--shots", 1, "--exemplars", SEED, "--ui"]
        self.process = subprocess.Popen(
            [*map(str, line), "--method", "linear", "--device", "cpu", "--json"],
            stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip

    @property
    def url(self):
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            self.errors.seek(0)
            if found := re.search(r"http://\S+", self.errors.read()):
                return found.group(0)
            time.sleep(0.05)
        self.errors.seek(0)
        raise AssertionError(self.errors.read())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.errors.close()

    def done(self):
        out, _ = self.process.communicate(timeout=600)
        self.errors.close()
        return self.process.returncode, out


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "dataset"
    seeds = f"0-{max(SAMPLES - 1, SEED)}" if SAMPLES > SEED else f"0-{SAMPLES - 2},{SEED}"
    job, network, _ = plan_generate(GenerateSettings(generator="demo", seeds=seeds, batch_size=32), None, "cpu")
    list(synthesize(job, folder, network))
    return folder


def test_from_blank_to_dataset_by_clicks_on_regions_through_reload_and_kill(dataset, page):
    size = (SIDE, SIDE)
    truth = np.array(Image.open(presets.resource(f"demo-exemplar-{SEED:08d}.mask.png")))
    source = Source.open(dataset)
    features = part_features(source.generator, source.latents([SEED]), SEED, "const")
    maps = [find_parts(features, level, SIDE) for level in range(3)]
    clicks, wanted = plan(maps, lambda inside: split_part(features, inside), truth, 10, BUDGET - 1)

    began = time.monotonic()
    command = Command(dataset)
    page.goto(command.url)
    page.wait_for_selector("body[data-parts]", timeout=60_000)
    opened = time.monotonic() - began
    sync_api.expect(page.locator("#why")).to_contain_text("asked for")
    keep(page, "1-blank")

    def do(some):
        for one in some:
            if page.locator("#detail").input_value() != str(one.level):
                page.locator("#detail").select_option(str(one.level))
            page.wait_for_selector(f"body[data-parts='0/{one.level}']", timeout=60_000)
            row, column = divmod(one.pixel, SIDE)
            if one.cls is None:
                before = int(page.evaluate("document.body.dataset.splits || 0"))
                click(page, row, column, size, shift=True)
                page.wait_for_selector(f"body[data-splits='{before + 1}']", timeout=60_000)
            else:
                page.locator(f"[data-class='{one.cls}']").click()
                click(page, row, column, size)

    # reload and kill where no split lies behind: splits are no strokes, and begin anew with the page's process
    first = next((i for i, c in enumerate(clicks) if c.cls is None), len(clicks))
    early, later = min(first, 6), min(first, 12)
    do(clicks[:early])
    settled(page)
    painted = mask_of(page, size=size)
    page.reload()
    page.wait_for_selector("body[data-parts]", timeout=60_000)
    np.testing.assert_array_equal(mask_of(page, size=size), painted)
    page.keyboard.press("z")
    settled(page)
    assert (mask_of(page, size=size) != painted).any()
    page.keyboard.press("y")
    settled(page)
    np.testing.assert_array_equal(mask_of(page, size=size), painted)

    for level in ("0", "2"):  # fetch all maps while somebody answers
        page.locator("#detail").select_option(level)
        page.wait_for_selector(f"body[data-parts='0/{level}']", timeout=60_000)
    command.kill()
    do(clicks[early:later])  # nobody listens: the browser holds these
    sync_api.expect(page.locator("#saved")).to_contain_text("Paint on", timeout=30_000)
    command = Command(dataset)
    assert command.url.split("?")[0] in (page.url, page.url + "/")
    settled(page)
    do(clicks[later:])
    settled(page)
    refitted(page)
    keep(page, "2-regions")
    page.locator("[data-class='0']").click()
    page.locator("#rest").click()
    settled(page)
    got = mask_of(page, size=size)
    np.testing.assert_array_equal(got, wanted)  # no stroke lost, none doubled
    score = mean_iou(confusion_of(truth, got, 10))
    refitted(page)
    refit = page.locator("#refit").text_content()
    keep(page, "3-propagated")
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(300)
    keep(page, "4-phone")
    page.set_viewport_size(WIDE)
    splits = sum(c.cls is None for c in clicks)
    count = len(clicks) + 1
    page.locator("#finish").click()
    page.wait_for_timeout(200)
    keep(page, "5-finish")
    page.locator("#done-yes").click()
    sync_api.expect(page.locator("#over")).to_contain_text("Done", timeout=30_000)
    finished = time.monotonic() - began
    status, out = command.done()
    seconds = time.monotonic() - began
    print(
        f"\n{count} clicks ({splits} splits, 1 for the rest): mIoU {score:.3f}; page after {opened:.1f} s, "
        f"finish after {finished:.1f} s, {SAMPLES} labelled pairs after {seconds:.1f} s; {refit}"
    )
    assert (status, count <= BUDGET, score >= 0.75) == (0, True, True)
    assert json.loads(out)["samples"] >= SAMPLES
    written = np.array(Image.open(dataset / "exemplars" / f"exemplar-{SEED:08d}.mask.png"))
    np.testing.assert_array_equal(written, wanted)
    masks = np.concatenate([arrays.mask for _, arrays in iter_shards(dataset)])
    assert len(masks) >= SAMPLES and len(np.unique(masks)) >= 6
    folder = os.environ.get("GANSEGCTL_IMAGES")
    if folder:
        sheet = Image.open(dataset / "contact.png").convert("RGB")
        sheet.quantize(160).save(Path(folder) / "annotate-ui-6-dataset.png", optimize=True)
