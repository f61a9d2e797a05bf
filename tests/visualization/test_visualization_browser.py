"""The page of a picture in Chromium: a query picked by mouse and by keyboard, block, group and head, on any width."""

import re
import shutil

import pytest
from PIL import Image
from smallest_run import SMALLEST

from src.config import build, build_model, load_config
from src.visualization.page.render import write_page
from src.visualization.subjects import from_files
from src.visualization.view import view

sync_api = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright: pip install -e .[dev]")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
HOSTILE = "<img src=x onerror='window.attacked=1'>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome in the PATH"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of a picture with a hostile name, 120x60 pixels, and what is in it."""
    folder = tmp_path_factory.mktemp("page")
    Image.radial_gradient("L").resize((120, 60)).save(folder / f"{HOSTILE}.png")
    cfg = load_config(*SMALLEST)
    (subject,) = from_files([folder / f"{HOSTILE}.png"], build(cfg["data"]))
    seen = view(build_model(cfg), subject, title=HOSTILE)
    return write_page(seen, list(seen.blocks), folder / "index.html", first=(100, 50)), seen


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser, made):
    """Opens the page; whatever its console complains of, or what it asks of others, fails the test."""
    complaints, contexts = [], []

    def opened(address="", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if not _own(asked.url, made[0]) else None)
        page.goto(made[0].as_uri() + address)
        expect(page.locator("#status")).to_contain_text(re.compile("."))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _own(url, path):
    return url.startswith("data:") or url.partition("#")[0] == path.as_uri()


def drawn(page):
    """What is on the canvas, as a short text."""
    return page.locator("#canvas").evaluate("canvas => canvas.toDataURL()")


def test_a_query_is_picked_by_click_and_moved_by_keys(visit, made):
    page, (_, seen) = visit("#block=three.1"), made
    block = seen.blocks["three.1"]
    canvas, status = page.locator("#canvas"), page.locator("#status")
    expect(status).to_contain_text("Query at x 105, y 53")  # of 4x4 the pixel at 100, 50
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.12, "y": box["height"] * 0.62})  # x 15, y 37.5 of 120x60
    number = block.query_at((15, 37.5))
    assert f"query={number}" in page.url
    expect(status).to_contain_text("Query at x 15, y 38")
    places, shares = block.keys_of(number)
    strongest = places[shares.argmax()]
    cells = page.locator("#strongest tbody tr:first-child td").all_inner_texts()
    assert cells[3] == f"{100 * shares.max():.1f}"
    assert [float(cell) for cell in cells[:2]] == pytest.approx(strongest.tolist(), abs=0.6)
    before = drawn(page)
    canvas.press("ArrowRight")
    expect(status).to_contain_text("Query at x 45, y 38")
    canvas.press("ArrowUp")
    expect(status).to_contain_text("Query at x 45, y 23")
    assert drawn(page) != before
    for _ in range(9):
        canvas.press("ArrowDown")
    expect(status).to_contain_text("Query at x 45, y 53")
    canvas.press("Home")
    expect(status).to_contain_text("Query at x 105, y 53")


def test_block_group_head_and_what_is_shown(visit, made):
    page, (_, seen) = visit(), made
    assert page.locator("#block option").count() == len(seen.blocks)
    page.locator("#block").select_option("three.1")
    pictures = {drawn(page)}
    page.locator("#group").select_option("1")
    pictures.add(drawn(page))
    assert page.locator("#head option").all_inner_texts() == ["mean of all", "2", "3"]  # of the group
    page.locator("#head").select_option("3")
    pictures.add(drawn(page))
    block = seen.blocks["three.1"]
    _, shares = block.keys_of(block.query_at((100, 50)), head=3)
    assert page.locator("#strongest tbody tr:first-child td").last.inner_text() == f"{100 * shares.max():.1f}"
    for mode in ("points", "keys", "made"):
        page.locator("#mode").select_option(mode)
        pictures.add(drawn(page))
    assert len(pictures) == 6
    again = visit("#" + page.url.partition("#")[2])
    assert again.locator("#mode").input_value() == "made" and again.locator("#block").input_value() == "three.1"


def test_narrow_screens_both_themes_and_hostile_names(visit):
    colours = set()
    for scheme in ("light", "dark"):
        page = visit(viewport={"width": 360, "height": 700}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#canvas").bounding_box()["width"] > 300
        colours.add(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
        assert page.evaluate("window.attacked") is None and HOSTILE in page.locator(".study").inner_text()
    assert len(colours) == 2
    page.locator("#theme").click()
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") in colours
    assert page.locator("#theme").inner_text() == "Dark"
