"""The page of a study in Chromium: what can be chosen in it, by mouse and by keyboard, and that it follows a study."""

import itertools
import json
import re
import shutil
import threading

import pytest
from made_up import make_study
from pages import TEXTS, document_of, leave_points, leave_progress

from src.reports.page.render import render
from src.reports.page.watch import make_server

sync_api = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright: pip install -e .[dev]")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome in the PATH"),
]

SCORES = {"baseline": 0.82, "no_offset": 0.70, "no_bias": 0.81}
HOSTILE = '<img src=x onerror="window.attacked=1">'


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A page of three variants with eight seeds, one of which failed."""
    at = tmp_path_factory.mktemp("study")
    table = make_study(at / "runs", SCORES, seeds=range(8), unfinished={("no_bias", 7): "failed"})
    leave_points(table.folder(table.job("baseline", 0)))
    found = document_of(table)
    path = at / "report.html"
    path.write_text(render(found))
    return path, found


@pytest.fixture
def visit(browser):
    """Opens a page; whatever its console complains of fails the test."""
    complaints, contexts = [], []

    def opened(address, *, width=1280, **options):
        options["reduced_motion"] = "reduce"  # a page that glides is elsewhere when it is read than when it is clicked
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _leaves(request.url, address) else None)
        page.goto(address)
        return page

    opened.complaints = complaints
    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _leaves(url, address):
    return not url.startswith(("data:", "blob:", address.partition("#")[0]))


@pytest.fixture
def page(visit, study):
    return visit(study[0].as_uri())


def rows(page, table="#variants"):
    return page.locator(f"{table} tbody th").all_inner_texts()


def cells(page, column, table="#variants"):
    heads = page.locator(f"{table} thead th").evaluate_all("found => found.map(head => head.dataset.column)")
    return page.locator(f"{table} tbody tr > :nth-child({heads.index(column) + 1})").all_inner_texts()


# -------------------------------------------------------------------------------------------- tables


def test_columns_sort_upwards_downwards_and_back(page):
    as_it_came = rows(page)
    head = page.locator("#variants thead th[data-column=score]")
    head.get_by_role("button").click()
    upwards = [float(text.split()[0]) for text in cells(page, "score")]
    assert upwards == sorted(upwards) and rows(page) != as_it_came
    assert head.get_attribute("aria-sort") == "ascending" and "variantsBy=score" in page.url
    head.get_by_role("button").press("Enter")
    assert [float(text.split()[0]) for text in cells(page, "score")] == upwards[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").press("Space")
    assert rows(page) == as_it_came and head.get_attribute("aria-sort") is None
    expect(head.get_by_role("button")).to_be_focused()


def test_every_column_of_runs_sorts_and_missing_values_come_last(page):
    heads = page.locator("#runs-table thead th")
    assert heads.first.locator("button").count() == 0  # ticks
    heads.evaluate_all("found => found.slice(1).forEach(head => head.querySelector('button').click())")
    assert len(rows(page, "#runs-table")) == 24
    for order in ("ascending", "descending"):
        page.locator("#runs-table thead th[data-column=test] button").click()
        assert heads.filter(has_text="Test").get_attribute("aria-sort") == order
        assert rows(page, "#runs-table")[-1] == "no_bias/seed7"


def test_runs_are_filtered_and_searched(page):
    page.locator("#filter-variant").select_option("no_bias")
    assert len(rows(page, "#runs-table")) == 8
    page.locator("#filter-status").select_option("failed")
    assert rows(page, "#runs-table") == ["no_bias/seed7"]
    expect(page.locator("#shown")).to_have_text("1 of 24 chosen, 0 ticked")
    page.locator("#filter-variant").select_option("")
    page.locator("#filter-status").select_option("")
    page.locator("#filter-seed").select_option("3")
    assert rows(page, "#runs-table") == ["baseline/seed3", "no_offset/seed3", "no_bias/seed3"]
    page.locator("#search").press_sequentially("OFFSET seed3")
    assert rows(page, "#runs-table") == ["no_offset/seed3"]
    page.locator("#filter-seed").select_option("")
    page.locator("#search").fill("it broke")  # the error's words
    assert rows(page, "#runs-table") == ["no_bias/seed7"]


def test_another_baseline_changes_differences_verdicts_and_the_forest_plot(page, study):
    _, found = study
    assert cells(page, "verdict") == ["", "worse", "cannot tell"]
    assert page.locator("#variants .worse").count() == 2 and page.locator("#forest .mark-worse").count() == 1
    before = cells(page, "difference")
    page.locator("#baseline").select_option("no_offset")
    means = [one["paired"]["mean"] for one in found["comparisons"]["no_offset"]]
    shown = [float(text.replace("\u2212", "-")) for text in cells(page, "difference") if text != "baseline"]
    assert shown == pytest.approx(means, abs=0.006) and cells(page, "difference") != before
    assert cells(page, "verdict") == ["better", "", "better"]
    assert page.locator("#forest .mark-better").count() == 2 and page.locator("#forest .mark-worse").count() == 0
    expect(page.locator("#variants-caption")).to_have_text("3 variants, compared with no_offset")


def test_a_table_is_saved_as_shown(page):
    page.locator("#baseline").select_option("no_offset")
    with page.expect_download() as download:
        page.locator("#save-variants").click()
    head, first, *others = download.value.path().read_text().splitlines()
    assert head.startswith('"Variant","Seeds","Test top-1, %","Difference"') and first.startswith('"baseline","8"')
    assert len(others) == 2 and download.value.suggested_filename == "made_up-variants.csv"


# -------------------------------------------------------------------------------------------- curves


def test_curves_of_variants_and_ticked_runs_lie_over_one_another(page):
    lines = page.locator("#lines .curve")
    assert lines.count() == 3
    page.locator("[data-key='draw-no_bias']").uncheck()
    assert lines.count() == 2
    page.get_by_label("Tick no_bias/seed1").check()
    assert lines.count() == 3 and "ticked=no_bias%2Fseed1" in page.url
    page.locator("#mode").select_option("runs")
    assert lines.count() == 8 + 8 + 1
    page.locator("#metric").select_option("train/loss")
    expect(page.locator("#readout")).to_contain_text("train/loss")


def test_the_values_at_a_step_are_read_by_mouse_and_by_keyboard(page, study):
    _, found = study
    page.locator("#mode").select_option("runs")
    run = found["runs"][0]
    values = [100 * value for value in run["curves"]["0"][1]]

    def reads(value):
        cell = page.locator("#readout tbody tr").filter(has_text=run["id"]).locator("td").last
        expect(cell).to_have_text(f"{value:.4g}")

    reads(values[-1])
    page.locator("#cursor").press("Home")
    reads(values[0])
    page.locator("#cursor").press("ArrowRight")
    reads(values[1])
    chart = page.locator("#lines svg")
    chart.hover(position={"x": chart.bounding_box()["width"] - 12, "y": 50})  # waits until the page rests
    reads(values[-1])


# ------------------------------------------------------------------------------------------- dialogs


def test_of_many_runs_the_first_are_shown_until_all_are_asked_for(visit, tmp_path, study):
    _, found = study
    many = [{**run, "id": f"{run['id']}{n}"} for n in range(10) for run in found["runs"]]
    path = tmp_path / "report.html"
    path.write_text(render({**found, "runs": many}))
    page = visit(path.as_uri())
    expect(page.locator("#shown")).to_have_text("240 of 240 chosen, 200 of them shown, 0 ticked")
    page.locator("#search").fill("seed79")  # filters look at all of them
    assert rows(page, "#runs-table") == ["baseline/seed79", "no_offset/seed79", "no_bias/seed79"]
    page.locator("#search").fill("")
    page.get_by_role("button", name="Show all").click()
    assert len(rows(page, "#runs-table")) == 240


def test_configs_of_two_runs_differ_in_what_is_shown(page):
    for name in ("baseline/seed0", "no_offset/seed1"):
        page.get_by_label(f"Tick {name}").check()
    page.get_by_role("button", name="Compare two configs").click()
    dialog = page.get_by_role("dialog")
    assert set(dialog.locator("tbody th").all_inner_texts()) == {
        "axes", "data.seed", "name", "offset._target_", "published.top1", "seed"
    }  # fmt: skip
    row = dialog.locator("tr", has_text="offset._target_")
    assert row.locator("td").all_inner_texts() == ["src.models.offset.baseline", "src.models.offset.no_offset"]
    dialog.locator("[data-key=diff-1]").select_option("baseline/seed1")
    assert dialog.locator("tbody th").all_inner_texts() == ["data.seed", "seed"]
    dialog.locator("[data-key=diff-1]").select_option("baseline/seed0")
    expect(dialog).to_contain_text("Both have the same config.")


def test_a_run_opens_with_its_record_and_the_points_it_reads(page):
    page.locator("#runs-table").get_by_role("button", name="baseline/seed0").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("runs/made_up/baseline/seed0-")
    expect(dialog).to_contain_text("epoch 4")
    assert dialog.locator("details[open]").count() == 0
    dialog.get_by_text("Config", exact=True).click()
    expect(dialog.locator("tr", has_text="recipe.base_lr")).to_contain_text("0.016")
    picture = dialog.locator("svg.picture")
    assert picture.locator("image").get_attribute("href").startswith("data:image/png")
    assert picture.locator("circle").count() == 16 and picture.locator("path").count() == 4
    arrows = picture.locator("path").first.get_attribute("d")
    dialog.locator("[data-key=picture-group]").select_option("1")
    assert picture.locator("path").count() == 2
    dialog.locator("[data-key=picture-group]").select_option("0")
    dialog.locator("[data-key=picture-block]").select_option("1")
    assert picture.locator("path").first.get_attribute("d") != arrows
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    expect(page.locator("#runs-table").get_by_role("button", name="baseline/seed0")).to_be_focused()


def test_a_failed_run_shows_its_traceback_and_a_variant_its_comparison(page):
    page.locator("#runs-table").get_by_role("button", name="no_bias/seed7").click()
    expect(page.get_by_label("Traceback")).to_have_text("Traceback: <b>it broke</b>")
    page.keyboard.press("Escape")
    page.locator("#variants").get_by_role("button", name="no_offset").click()
    expect(page.get_by_role("dialog")).to_contain_text("p after Holm")
    assert page.get_by_role("dialog").locator("tbody tr").count() == 8


def test_a_view_is_in_its_address(page, visit):
    page.locator("#baseline").select_option("no_bias")
    page.locator("#mode").select_option("runs")
    page.locator("[data-key='draw-baseline']").uncheck()
    page.locator("#search").fill("seed1")
    page.locator("#runs-table thead th[data-column=test] button").click()
    page.locator("#runs-table").get_by_role("button", name="no_offset/seed1").click()
    again = visit(page.url)
    expect(again.get_by_role("dialog")).to_contain_text("Run no_offset/seed1")
    again.keyboard.press("Escape")
    expect(again.locator("#baseline")).to_have_value("no_bias")
    expect(again.locator("#search")).to_have_value("seed1")
    expect(again.locator("[data-key='draw-baseline']")).not_to_be_checked()
    assert rows(again, "#runs-table") == rows(page, "#runs-table")
    assert again.locator("#lines .curve").count() == 16


def test_an_address_of_what_is_gone_is_the_ordinary_view(visit, study):
    page = visit(study[0].as_uri() + "#baseline=gone&ticked=gone&open=run+gone&metric=gone&drawn=gone&mode=gone")
    expect(page.locator("#baseline")).to_have_value("baseline")
    assert not page.get_by_role("dialog").count() and page.locator("#lines .curve").count() == 0


# ------------------------------------------------------------------------- safety, access, narrow screens


def test_names_and_tracebacks_are_never_markup(visit, tmp_path):
    scores = {"baseline": 0.8, HOSTILE.replace("/", ""): 0.7}
    table = make_study(
        tmp_path / "runs", scores, seeds=(0, 1), question=HOSTILE, unfinished={("baseline", 1): "failed"}
    )
    found = document_of(table, texts={"answer": HOSTILE, "limits": [HOSTILE]})
    for run in found["runs"]:
        run["log"] = HOSTILE
        if run["error"]:
            run["error"] = {"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE}
    path = tmp_path / "report.html"
    path.write_text(render(found))
    page = visit(path.as_uri())
    for name in ("baseline/seed1", f"{HOSTILE}/seed0"):
        page.locator("#runs-table").get_by_role("button", name=name).click()
        expect(page.get_by_label("Log")).to_have_text(HOSTILE)
        page.keyboard.press("Escape")
    page.locator("#variants").get_by_role("button", name=HOSTILE).click()
    page.keyboard.press("Escape")
    page.locator("#baseline").select_option(HOSTILE)
    page.get_by_role("button", name="Compare two configs").click()
    assert page.evaluate("window.attacked") is None and page.locator("img").count() == 0
    assert page.get_by_text(HOSTILE).count() > 3


def test_a_script_that_came_in_would_not_run(visit, study, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(study[0].read_text().replace("<main", "<script>window.attacked = 1</script><main"))
    page = visit(path.as_uri())
    assert page.evaluate("window.attacked") is None
    assert len(visit.complaints) == 1 and "Content Security Policy" in visit.complaints.pop()


def test_everything_is_reached_with_the_keyboard(page):
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the results")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert "skip" not in page.url and page.url.endswith("report.html")
    page.keyboard.press("Tab")
    expect(page.locator("#baseline")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    seen = set()
    for _ in range(58):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.dataset.key || document.activeElement.id"))
    assert seen >= {
        "variants",
        "variants-by-p",
        "variant-no_bias",
        "metric",
        "draw-baseline",
        "cursor",
        "search",
        "compare",
    }
    assert seen >= {"runs-table", "runs-by-test", "tick-baseline/seed0", "run-baseline/seed0"}
    page.locator("[data-key='tick-baseline/seed1']").press("Space")
    expect(page.get_by_label("Tick baseline/seed1")).to_be_checked()
    expect(page.get_by_label("Tick baseline/seed1")).to_be_focused()
    page.locator("[data-key='run-baseline/seed1']").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("[data-key='run-baseline/seed1']")).to_be_focused()


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screens_scroll_tables_not_the_page(visit, study, width):
    page = visit(study[0].as_uri(), width=width)
    wide = "document.documentElement.scrollWidth > window.innerWidth"
    assert not page.evaluate(wide)
    assert page.locator("#variants").evaluate("box => box.scrollWidth > box.clientWidth")
    chart = page.locator("#forest svg").bounding_box()
    assert chart["x"] >= 0 and chart["x"] + chart["width"] <= width
    page.get_by_label("Tick baseline/seed0").check()
    page.get_by_role("button", name="Compare two configs").click()
    assert not page.evaluate(wide)


def test_labels_of_the_forest_plot_do_not_overlap(visit, study):
    for width in (360, 1280):
        page = visit(study[0].as_uri(), width=width)
        boxes = page.locator("#forest text").evaluate_all(
            "found => found.map(text => text.getBBox()).map(b => [b.x, b.y, b.x + b.width, b.y + b.height])"
        )
        right = page.locator("#forest svg").evaluate("chart => chart.clientWidth")
        assert len(boxes) >= 7 and all(x0 >= 0 and x1 <= right for x0, _, x1, _ in boxes)
        for one, other in itertools.combinations(boxes, 2):
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] + 1 or other[3] <= one[1] + 1
            assert apart, (one, other)


def test_colours_follow_the_system_and_the_button(visit, study):
    def is_(colour):
        expect(page.locator("body")).to_have_css("background-color", colour)

    dark, light = "rgb(21, 24, 28)", "rgb(255, 255, 255)"
    page = visit(study[0].as_uri(), color_scheme="dark")
    is_(dark)
    page.locator("#theme").click()
    is_(light)
    page.reload()
    is_(light)
    page.locator("#theme").click()
    is_(dark)
    page.emulate_media(media="print")
    is_(light)
    assert not page.locator("nav").is_visible()


# ----------------------------------------------------------------------------------- following a study


def test_news_change_the_page_and_nothing_that_was_chosen(visit, tmp_path, monkeypatch):
    monkeypatch.setattr("src.reports.page.watch.POLL", 0.1)
    monkeypatch.setattr("src.reports.page.watch.FRESH", 0.0)
    scores = dict.fromkeys([*SCORES, *(f"variant_{n}" for n in range(8))], 0.8)
    table = make_study(tmp_path / "runs", scores, seeds=(0, 1), unfinished={("baseline", 1): "running"})
    leave_progress(table.folder(table.job("baseline", 1)), 40)
    now = {"document": document_of(table)}
    server = make_server(lambda: now["document"], 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    page = visit(f"http://127.0.0.1:{server.server_address[1]}/", width=768)
    try:
        expect(page.locator("#heard")).to_contain_text("Last heard from its server at")
        expect(page.locator("#jobs")).to_contain_text("step 40 of 100, validation 50.0 %, about 1 min 00 s left")
        page.locator("#baseline").select_option("no_bias")
        page.get_by_label("Tick no_bias/seed1").check()
        page.locator("#runs-table thead th[data-column=test] button").click()
        page.locator("#search").fill("seed1")
        page.locator("#runs-table").evaluate("box => { box.scrollLeft = 60; }")
        page.locator("[data-key='run-no_bias/seed1']").focus()
        scrolled = page.evaluate("scrollY")
        assert scrolled > 0

        now["document"] = {**now["document"], "texts": {**TEXTS, "answer": "It does."}}
        now["document"]["runs"] = json.loads(json.dumps(now["document"]["runs"]))
        next(run for run in now["document"]["runs"] if run["progress"])["progress"]["step"] = 80
        expect(page.locator("#answer")).to_have_text("It does.")
        expect(page.locator("#jobs")).to_contain_text("step 80 of 100")
        assert page.locator("#jobs progress").evaluate("bar => bar.value") == 80
        expect(page.locator("#baseline")).to_have_value("no_bias")
        expect(page.get_by_label("Tick no_bias/seed1")).to_be_checked()
        expect(page.locator("#search")).to_have_value("seed1")
        expect(page.locator("[data-key='run-no_bias/seed1']")).to_be_focused()
        assert page.locator("#runs-table thead th[data-column=test]").get_attribute("aria-sort") == "ascending"
        assert page.evaluate("scrollY") == scrolled
        assert page.locator("#runs-table").evaluate("box => box.scrollLeft") == 60
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    expect(page.locator("#heard")).to_contain_text(re.compile("The server is gone; last heard from it at .*goes on"))
    page.close()
    assert all("net::ERR_" in complaint for complaint in visit.complaints), visit.complaints  # of the server that went
    visit.complaints.clear()


def test_a_dialog_stays_as_it_is_until_its_run_changes(visit, tmp_path, monkeypatch):
    monkeypatch.setattr("src.reports.page.watch.POLL", 0.1)
    monkeypatch.setattr("src.reports.page.watch.FRESH", 0.0)
    table = make_study(tmp_path / "runs", SCORES, seeds=(0, 1), unfinished={("baseline", 1): "running"})
    leave_progress(table.folder(table.job("baseline", 1)), 40)
    now = {"document": document_of(table)}
    server = make_server(lambda: now["document"], 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        page = visit(f"http://127.0.0.1:{server.server_address[1]}/#open=run+baseline%2Fseed1")
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Config", exact=True).click()
        leave_progress(table.folder(table.job("baseline", 1)), 90)
        now["document"] = document_of(table)
        expect(dialog).to_contain_text("step 90 of 100")
        expect(dialog.locator("tr", has_text="recipe.base_lr")).to_be_visible()
        page.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("scores", "seeds", "left"),
    [
        ({"baseline": 0.8}, (0,), {}),
        (SCORES, (0, 1), {(name, seed): "waiting" for name in SCORES for seed in (0, 1)}),
        (SCORES, (0,), {("baseline", 0): "failed"}),
    ],
    ids=["one variant", "nothing finished", "no baseline"],
)
def test_any_study_is_drawn(visit, tmp_path, scores, seeds, left):
    path = tmp_path / "report.html"
    path.write_text(render(document_of(make_study(tmp_path / "runs", scores, seeds=seeds, unfinished=left), texts={})))
    page = visit(path.as_uri())
    assert len(rows(page)) == len(scores) and len(rows(page, "#runs-table")) == len(scores) * len(seeds)
    assert not page.locator("text=NaN").count() and not page.locator("text=undefined").count()
