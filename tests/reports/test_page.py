"""The page of a study, without a browser: what its document holds and hides, its safety as text, its server."""

import base64
import hashlib
import http.client
import json
import re
import threading
from contextlib import contextmanager

import pytest
from made_up import make_study
from pages import TEXTS, document_of, leave_points

from src.reports.comparison import compare_all
from src.reports.page import curves
from src.reports.page.curves import thinned
from src.reports.page.document import document
from src.reports.page.local import ROOT, without_places
from src.reports.page.render import as_json, render, render_index
from src.reports.page.runs import settings
from src.reports.page.watch import make_server
from src.reports.results import results_of
from src.runs.record import read_record

SCORES = {"baseline": 0.82, "no_offset": 0.78, "no_bias": 0.80}
HOSTILE = '</script><img src=x onerror="document.title=1">\u2028'


@pytest.fixture
def table(tmp_path):
    return make_study(
        tmp_path / "runs", SCORES, unfinished={("baseline", 2): "failed", ("no_bias", 1): "waiting"}
    )  # fmt: skip


def run_of(found, name):
    return next(run for run in found["runs"] if run["id"] == name)


# -------------------------------------------------------------------------------------- the document


def test_every_variant_can_be_the_baseline(table):
    found = document_of(table)
    assert set(found["comparisons"]) == set(SCORES)
    for baseline, rows in found["comparisons"].items():
        assert [row["variant"] for row in rows] == [name for name in SCORES if name != baseline]
    one = found["comparisons"]["baseline"][0]
    other = next(row for row in found["comparisons"]["no_offset"] if row["variant"] == "baseline")
    assert one["seeds"] == [0, 1]  # seed 2 of the baseline failed
    assert one["paired"]["mean"] == pytest.approx(-other["paired"]["mean"])
    scores = results_of(table).scores
    assert one["differences"] == pytest.approx(
        [scores("no_offset")[s] - scores("baseline")[s] for s in (0, 1)], rel=1e-3
    )


def test_means_and_costs_are_those_of_the_finished_runs(table):
    found = document_of(table)
    variant = found["variants"][2]
    scores = list(results_of(table).scores("no_bias").values())
    assert (variant["finished"], variant["jobs"]) == (2, 3)
    assert variant["mean"] == pytest.approx(sum(scores) / 2, rel=1e-4)
    assert variant["params"] == 575_160
    assert found["progress"]["counts"] == {"waiting": 1, "failed": 1, "finished": 7}


def test_a_config_is_kept_once_and_each_run_adds_what_is_its_own(table):
    found = document_of(table)
    shared = {variant["name"]: variant["config"] for variant in found["variants"]}
    second = run_of(found, "no_offset/seed2")
    assert second["config"] == {"seed": 2, "data.seed": 2}
    whole = {**shared["no_offset"], **second["config"]}
    record = read_record(table.folder(table.job("no_offset", 2)))
    assert whole == settings(record["config"])
    assert len(found["environments"]) == 1


def test_a_failed_run_has_its_traceback_and_a_waiting_one_nothing(table):
    found = document_of(table)
    failed, waiting = run_of(found, "baseline/seed2"), run_of(found, "no_bias/seed1")
    assert failed["error"]["traceback"].startswith("Traceback") and failed["log"].endswith("epoch 4")
    assert waiting["status"] == "waiting" and waiting["curves"] == {} and "metrics" not in waiting


def test_logs_are_cut_to_their_last_lines(table):
    folder = table.folder(table.job("baseline", 0))
    (folder / "log.txt").write_text("".join(f"line {n} {'x' * 1000}\n" for n in range(200)))
    (table.folder(table.job("baseline", 1)) / "log.txt").write_text("".join(f"line {n}\n" for n in range(200)))
    found = document_of(table)
    assert run_of(found, "baseline/seed1")["log"].splitlines() == [f"line {n}" for n in range(160, 200)]
    log = run_of(found, "baseline/seed0")["log"]
    assert len(log) <= 8000 and log.splitlines()[-1].startswith("line 199 ")


def test_a_job_that_died_before_it_had_a_run_tells_what_it_printed(table):
    output = table.output(table.job("no_bias", 1))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("ImportError: no module\n")
    assert run_of(document_of(table), "no_bias/seed1")["log"] == "ImportError: no module"


def test_nothing_tells_where_the_study_lies_or_on_which_machine(table, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "cluster-node-17")
    folder = table.folder(table.job("baseline", 0))
    (folder / "log.txt").write_text(
        f"{folder}/checkpoints and {ROOT}/src/train.py on cluster-node-17, val/acc1 0.5, https://host.example/a/b/c\n"
        'File "/opt/conda/lib/python3.11/site-packages/torch/nn/linear.py", root=/data/imagenet/val\n'
    )
    text = as_json(document_of(table))
    for secret in (str(table.runs), str(ROOT), "cluster-node", "/opt", "/data/", '"host"', '"pid"', "ab12"):
        assert secret not in text, secret
    log = run_of(document_of(table), "baseline/seed0")["log"].splitlines()
    run = folder.relative_to(table.runs)
    assert log[0] == f"runs/{run}/checkpoints and src/train.py on <machine>, val/acc1 0.5, https://host.example/a/b/c"
    assert log[1] == 'File "…/torch/nn/linear.py", root=…/val'


@pytest.mark.parametrize("text", ["src/models/dat.py", "1/2 and val/acc1", "</b></i>", "s/epoch", "a / b / c", "~/x/y"])
def test_what_is_no_place_stays(text, tmp_path):
    assert without_places(tmp_path)(text) == text


def test_the_same_runs_give_the_same_bytes(table):
    leave_points(table.folder(table.job("baseline", 0)))
    assert render(document_of(table)) == render(document_of(table))


def test_points_are_tenths_of_pixels_and_images_are_shared(table):
    for seed in (0, 1):
        leave_points(table.folder(table.job("baseline", seed)))
    found = document_of(table)
    assert len(found["images"]) == 2 and found["images"][0].startswith("data:image/png;base64,")
    first, second = (run_of(found, f"baseline/seed{seed}")["points"] for seed in (0, 1))
    assert first == second and first["size"] == [64, 64]
    block = first["blocks"][0]
    assert block["name"] == "three.1" and found["grids"][block["grid"]][:4] == [80, 80, 240, 80]
    assert [len(group) for image in block["points"] for group in image] == [32] * 4
    moved = [abs(a - b) for a, b in zip(block["points"][1][1], found["grids"][block["grid"]], strict=True)]
    assert 0 < max(moved) <= 61


def test_points_stop_where_there_is_no_room_for_more(table, monkeypatch):
    monkeypatch.setattr("src.reports.page.pictures.NUMBERS", 300)
    for seed in (0, 1):
        leave_points(table.folder(table.job("baseline", seed)))
    found = document_of(table)
    assert run_of(found, "baseline/seed0")["points"] and run_of(found, "baseline/seed1")["points"] is None


# -------------------------------------------------------------------------------------------- curves


def test_thinned_curves_keep_both_ends():
    points = list(range(1000))
    few = thinned(points, 200)
    assert len(few) == len(set(few)) == 200 and (few[0], few[-1]) == (0, 999) and few == sorted(few)
    assert thinned(points[:200], 200) == points[:200]


def test_curves_are_the_columns_of_interest_and_share_their_steps(table):
    found = document_of(table)
    columns = found["curves"]["columns"]
    assert columns[:3] == ["val/acc1", "val/loss", "train/loss"] and "epoch" not in columns
    first, other = (run_of(found, name)["curves"]["0"] for name in ("baseline/seed0", "no_bias/seed2"))
    assert first[0] == other[0] and found["curves"]["steps"][first[0]] == [19, 39, 59, 79, 99]
    assert len(first[1]) == 5 and first[1] != other[1]


def test_many_curves_have_fewer_points_each(table, monkeypatch):
    monkeypatch.setattr(curves, "NUMBERS", 8 * 6 * 3)
    monkeypatch.setattr(curves, "FEWEST", 2)
    found = document_of(table)
    limit = found["curves"]["limit"]
    values = [points for run in found["runs"] for _, points in run["curves"].values()]
    assert 2 <= limit < 5 and max(map(len, values)) == limit


def test_curves_of_finished_runs_are_read_once(table):
    before = document_of(table)
    done, failed = (table.folder(table.job("baseline", seed)) for seed in (0, 2))
    for folder in (done, failed):
        (folder / "curves" / "attempt-1" / "metrics.csv").unlink()
    after = document_of(table)
    assert run_of(after, "baseline/seed0")["curves"] == run_of(before, "baseline/seed0")["curves"] != {}
    assert run_of(after, "baseline/seed2")["curves"] == {}


# ---------------------------------------------------------------------------------- unusual studies


@pytest.mark.parametrize(
    ("scores", "seeds", "left"),
    [
        ({"baseline": 0.8}, (0, 1), {}),
        (SCORES, (0,), {}),
        (SCORES, (0, 1), {(name, seed): "waiting" for name in SCORES for seed in (0, 1)}),
        (SCORES, (0, 1), {("baseline", seed): "failed" for seed in (0, 1)}),
    ],
    ids=["one variant", "one seed", "nothing finished", "no baseline"],
)
def test_any_study_has_a_page(tmp_path, scores, seeds, left):
    found = document_of(make_study(tmp_path / "runs", scores, seeds=seeds, unfinished=left))
    assert len(found["runs"]) == len(scores) * len(seeds)
    assert json.loads(as_json(found)) == found
    assert "<h1>Does it matter?</h1>" in render(found)


def test_without_predictions_nothing_is_said_about_images(table):
    assert document_of(table)["comparisons"]["baseline"][0]["images"]["images"] == 200
    (table.folder(table.job("no_offset", 0)) / "predictions.npz").unlink()
    assert "images" not in document_of(table)["comparisons"]["baseline"][0]


# ------------------------------------------------------------------------------------------ the page


def test_the_page_refers_to_nothing_outside_of_it(table):
    page = render(document_of(table), [("forest", "Forest", "<svg></svg>", "Two points.", "results.csv")])
    assert not re.findall(r'(?:src|href)="(?!#|results\.csv|data:)', page)
    assert not re.findall(r"@import|url\((?!#)", page)
    assert '<figure id="figure-forest">' in page and 'aria-label="Two points."' in page


def test_only_the_pages_own_script_may_run(table):
    page = render(document_of(table))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = re.search(r"script-src 'sha256-([^']+)'", policy)[1]
    assert base64.b64decode(allowed) == hashlib.sha256(script.encode()).digest()
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy and "unsafe-eval" not in policy
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script


def test_what_runs_say_can_not_leave_its_place(tmp_path):
    table = make_study(tmp_path / "runs", {"baseline": 0.8}, seeds=(0,), question=HOSTILE)
    (table.folder(table.jobs[0]) / "log.txt").write_text(HOSTILE + "&amp;\n")
    page = render(document_of(table, texts={"answer": HOSTILE, "protocol": [HOSTILE]}))
    assert "<img" not in page and page.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)["runs"][0]["log"].startswith("</script><img")
    assert json.loads(data)["texts"]["answer"] == HOSTILE


def test_the_list_of_studies_links_to_those_with_a_report():
    study = {"name": "table6", "question": "What <b>?", "answer": "Much.", "report": "table6/report.html"}
    study |= {"variants": 7, "seeds": 8, "finished": 50, "total": 56}
    study |= {"data": "digits", "model": "micro", "hardware": "A CPU"}
    page = render_index([study, {**study, "name": "groups", "answer": None, "report": None}])
    assert page.count("<a href") == 1 and '<a href="table6/report.html">table6</a>' in page
    assert "What &lt;b&gt;?" in page and "50 of 56" in page and "2 studies" in page
    assert "No study has been run yet" in render_index([])


# ---------------------------------------------------------------------------------------- the server


@contextmanager
def served(make_document):
    with make_server(make_document, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def ask(port, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_the_server_has_the_page_and_news_only_when_there_are_any(table, monkeypatch):
    monkeypatch.setattr("src.reports.page.watch.FRESH", 0.0)
    texts = dict(TEXTS)
    results = results_of(table)
    comparisons = compare_all(results)
    with served(lambda: document(results, comparisons, texts=texts)) as port:
        status, page, _ = ask(port)
        assert status == 200 and 'data-poll="3' in page and "connect-src &#39;self&#39;" in page
        status, data, headers = ask(port, "/data.json")
        assert status == 200 and json.loads(data)["texts"]["answer"] == TEXTS["answer"]
        assert ask(port, "/data.json", If_None_Match=headers["ETag"])[:2] == (304, "")
        texts["answer"] = "Something else."
        status, data, later = ask(port, "/data.json", If_None_Match=headers["ETag"])
        assert status == 200 and json.loads(data)["texts"]["answer"] == "Something else."
        assert later["ETag"] != headers["ETag"] and "Access-Control-Allow-Origin" not in later


def test_many_pages_cost_no_more_than_one():
    made = []
    with served(lambda: made.append(1) or {"n": 1}) as port:
        assert [ask(port, "/data.json")[1] for _ in range(5)] == ['{"n":1}'] * 5
    assert len(made) == 1


def test_the_server_refuses_foreign_names_other_paths_and_other_methods():
    with served(lambda: {"n": 1}) as port:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
            assert ask(port, "/data.json", Host=host)[0] == 403, host
        for host in ("localhost", f"localhost:{port}", "127.0.0.1:9999"):  # a tunnel has a port of its own
            assert ask(port, "/data.json", Host=host)[0] == 200, host
        for path in ("/src", "/../README.md", "/data.json/", "/%2e%2e/"):
            assert ask(port, path)[0] == 404, path
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            assert ask(port, "/data.json", method)[0] == 501, method


def test_a_study_that_can_not_be_read_does_not_end_the_server():
    def broken():
        raise ValueError("the table isn't whole")

    with served(broken) as port:
        assert ask(port, "/data.json")[:2] == (500, "the table isn't whole\n")
        assert ask(port)[0] == 500


def test_a_port_in_use_is_one_line_with_a_way_out():
    with served(lambda: {}) as port, pytest.raises(ValueError, match=rf"port {port} is in use; give another one, or 0"):
        make_server(lambda: {}, port)
    with pytest.raises(ValueError, match="port 70000 must lie between"):
        make_server(lambda: {}, 70000)
