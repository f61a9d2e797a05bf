import json
import os
import sys
from pathlib import Path

import made_up
import pytest
import wandb
from matplotlib.figure import Figure

from src.reports import wandb_summary, wandb_views
from src.reports.comparison import compare_with_baseline
from src.reports.results import results_of
from src.reports.wandb_summary import log_summary, result_table, runs_table
from src.reports.wandb_views import build_views, report_of, specification, workspace_of
from src.runs.record import Record, read_record
from src.runs.wandb_logger import inspect_file
from src.sync import find_logged

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # wandb-workspaces' own

SCORES = {"baseline": 0.8, "no_offset": 0.6, "no_bias": 0.79}
PLACE = {"project": "datlab", "entity": None, "mode": "auto"}


@pytest.fixture(scope="module", autouse=True)
def no_account(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        for key in [key for key in os.environ if key.startswith("WANDB_")]:
            monkeypatch.delenv(key)
        home = tmp_path_factory.mktemp("home")
        monkeypatch.setenv("NETRC", str(home / "netrc"))
        monkeypatch.setenv("XDG_DATA_HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Eight jobs have a result, one has failed."""
    return results_of(
        made_up.make_study(tmp_path_factory.mktemp("runs"), SCORES, unfinished={("no_bias", 2): "failed"})
    )


@pytest.fixture(scope="module")
def rows(results):
    return compare_with_baseline(results, images=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.md").write_text("# Does it matter?\n")
    (folder / "results.csv").write_text("name,seed\n")
    Figure((1, 1)).savefig(folder / "forest.png")
    return sorted(folder.iterdir())


# ---------------------------------------------------------------------------------------- summary run


@pytest.fixture(scope="module")
def logged(results, rows, files):
    folder = log_summary(results, rows, files, **PLACE)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def records(logged):
    [file] = logged.glob("*.wandb")
    return [json.loads(line) for line in inspect_file(file).splitlines()]


@pytest.fixture(scope="module")
def summary(logged):
    [file] = logged.glob("*.wandb")
    return json.loads(inspect_file(file, "--summary"))


def test_the_summary_run_belongs_to_the_study(results, logged, records, summary):
    assert logged.parent == results.table.runs / "made_up" / ".report" / "wandb"
    [run] = [record["run"] for record in records if record["type"] == "run"][:1]
    assert (run["job_type"], run["run_group"], run["display_name"]) == ("report", "made_up", "made_up-report")
    assert set(run["tags"]) == {"made_up", "digits", "micro"}, "the study's tag, as training runs have it"
    assert (summary["state"], summary["exit_code"], summary["project"]) == ("finished", 0, "datlab")
    assert summary["config"]["question"] == "Does it matter?" and summary["config"]["finished"] == 8


def test_its_values_are_those_of_the_report(results, rows, summary):
    values = summary["summary"]
    no_offset = rows[0]
    assert values["baseline/mean"] == pytest.approx(sum(results.scores("baseline").values()) / 3)
    assert values["no_offset/difference"] == pytest.approx(no_offset.paired.mean)
    assert (values["no_offset/low"], values["no_offset/high"]) == pytest.approx(no_offset.paired.t)
    assert values["no_offset/p_holm"] == pytest.approx(no_offset.p_holm)
    assert values["no_offset/verdict"] == no_offset.verdict.word
    assert "baseline/difference" not in values, "nothing to compare it with"


def test_its_tables_have_a_row_per_variant_and_per_job(results, rows, logged):
    media = {path.name.partition("_")[0]: json.loads(path.read_text()) for path in logged.rglob("*.table.json")}
    assert media["results"]["columns"] == list(result_table(results, rows)[0])
    assert [row[0] for row in media["results"]["data"]] == list(SCORES)
    assert len(media["runs"]["data"]) == 9
    failed = [row for row in media["runs"]["data"] if row[2] == "failed"]
    assert [row[:4] for row in failed] == [["no_bias", 2, "failed", None]]


def test_its_images_and_files_are_there(files, records, summary, logged):
    image = summary["summary"]["figure/forest"]
    assert image["_type"] == "image-file"
    forest = next(path for path in files if path.suffix == ".png")
    assert (logged / "files" / image["path"]).read_bytes() == forest.read_bytes()
    artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
    [report] = [artifact for artifact in artifacts if artifact["type"] == "report"]
    contents = {content["path"]: Path(content["local_path"]) for content in report["manifest"]["contents"]}
    assert {name: path.read_bytes() for name, path in contents.items()} == {f.name: f.read_bytes() for f in files}


def test_its_copies_stay_in_the_studys_folder(results, records, no_account):
    at = results.table.runs / "made_up" / ".report"
    for record in records:
        for content in record.get("artifact", {}).get("manifest", {}).get("contents", []):
            assert Path(content["local_path"]).is_relative_to(at)
    assert not [path for path in no_account.rglob("*") if path.is_file()]


def test_sync_finds_it(results, logged):
    [found] = [logged for logged in find_logged(results.table.runs) if logged.files]
    assert found.folder == logged and not found.running


def test_the_same_report_is_not_logged_twice(results, rows, files, logged, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **settings: pytest.fail("logged again"))
    assert log_summary(results, rows, files, **PLACE) == logged


@pytest.mark.parametrize("what", ["file", "result", "cut off"])
def test_what_has_changed_is_another_run(results, rows, files, logged, monkeypatch, tmp_path, what):
    """`init` is stopped: the id is all that is asked."""
    started = []

    def init(**settings):
        started.append(settings["id"])
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", init)
    if what == "file":
        changed = tmp_path / "report.md"
        changed.write_text("# Something else\n")
        files = [changed, *files[:1]]
    elif what == "result":
        rows = rows[:1]
    else:
        monkeypatch.setattr(wandb_summary, "inspect_file", lambda *args: json.dumps({"state": "crashed"}))
    with pytest.raises(KeyboardInterrupt):
        log_summary(results, rows, files, **PLACE)
    [key] = started
    assert logged.name.endswith(key) == (what == "cut off"), "one that was cut off is gone on with"


def test_disabled_writes_nothing(tmp_path):
    study = results_of(made_up.make_study(tmp_path, SCORES))
    assert log_summary(study, (), (), **{**PLACE, "mode": "disabled"}) is None
    assert not (tmp_path / "made_up" / ".report").exists()


def test_two_files_of_one_name_are_refused(results, rows, tmp_path):
    with pytest.raises(ValueError, match=r"report\.md; give one another name"):
        log_summary(results, rows, [tmp_path / "a" / "report.md", tmp_path / "b" / "report.md"], **PLACE)


def test_tables_of_a_study_without_any_result(tmp_path):
    waiting = {(name, seed): "waiting" for name in SCORES for seed in range(3)}
    study = results_of(made_up.make_study(tmp_path, SCORES, unfinished=waiting))
    assert [row["mean"] for row in result_table(study, ())] == [None] * 3
    assert {row["status"] for row in runs_table(study)} == {"waiting"}


# --------------------------------------------------------------------------------- report and workspace


@pytest.fixture
def workspaces():
    pytest.importorskip("wandb_workspaces")


def views(results, rows, folder):
    return build_views(
        results, rows, [Path("forest.png")], answer="Yes | no.", project="datlab", entity=None, folder=folder
    )


def test_without_an_account_the_views_are_files(workspaces, results, rows, tmp_path):
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    said = views(results, rows, tmp_path)
    assert "wandb login" in said and "\n" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "workspace.json"]

    report = wr.Report._from_model(
        wr.interface.internal.ReportViewspec.model_validate_json((tmp_path / "report.json").read_text())
    )
    assert report.title == "made_up: Does it matter?"
    assert [block.text for block in report.blocks if isinstance(block, wr.P)][:2] == ["Does it matter?", "Yes | no."]
    [table] = [block.text for block in report.blocks if isinstance(block, wr.MarkdownBlock)]
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [f"| {name}" for name in SCORES]
    assert len({line.count("|") for line in table.splitlines()}) == 1
    figures, curves = [block for block in report.blocks if isinstance(block, wr.PanelGrid)]
    assert figures.panels[0].media_keys == ["figure/forest"]
    assert "made_up" in figures.runsets[0].filters and "report" in figures.runsets[0].filters
    assert "made_up" in curves.runsets[0].filters and curves.runsets[0].groupby == ["run.Group"]

    workspace = ws.Workspace._from_model(
        ws.internal.View.model_validate_json((tmp_path / "workspace.json").read_text())
    )
    assert [group.name for group in workspace.runset_settings.groupby] == ["Group"]
    plots = [plot for section in workspace.sections for plot in section.panels]
    shown = {metric.name for plot in plots for metric in plot.y}
    assert {"val/acc1", "train/loss", "train/images_per_second", "offset/three/g0/mean_px"} <= shown
    assert {(plot.groupby_aggfunc, plot.groupby_rangefunc) for plot in plots} == {("mean", "stddev")}
    assert {plot.x.name for plot in plots} == {"trainer/global_step"}


def test_the_same_study_gives_the_same_specification(workspaces, results, rows):
    def texts():
        report = report_of(results, rows, [Path("forest.png")], answer="Yes.", project="datlab", entity="")
        return specification(report), specification(workspace_of(results, project="datlab", entity=""))

    assert texts() == texts()


def test_runs_that_another_study_computed_are_among_them(workspaces, tmp_path):
    table = made_up.make_study(tmp_path, SCORES, seeds=(0, 1))
    job = table.jobs[0]
    record = read_record(table.folder(job))
    Record(table.folder(job), {**record, "study": "another"}).update()
    filters = workspace_of(results_of(table), project="datlab", entity="").runset_settings.filters
    assert job.identity in filters and table.jobs[1].identity not in filters


def test_a_missing_package_is_one_line(results, rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[wandb\]"'):
        views(results, rows, tmp_path)


def test_with_an_account_the_views_are_saved_and_the_next_time_replaced(
    workspaces, results, rows, tmp_path, monkeypatch
):
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    ids = []

    def save_report(self):
        ids.append(self.id)
        self.id = self.id or "r1"

    def save_workspace(self):
        ids.append(self._internal_id)
        self._internal_id, self._internal_name = self._internal_id or "w1", "nw-w1-v"

    monkeypatch.setattr(wandb_views, "has_key", lambda: True)
    monkeypatch.setattr(wandb_views.wandb, "Api", lambda: type("Api", (), {"default_entity": "somebody"}))
    monkeypatch.setattr(wr.Report, "save", save_report)
    monkeypatch.setattr(ws.Workspace, "save", save_workspace)
    for kind in (wr.Report, ws.Workspace):
        monkeypatch.setattr(kind, "url", property(lambda self: f"at {self.entity}"))
    assert "at somebody" in views(results, rows, tmp_path)
    views(results, rows, tmp_path)
    assert ids == ["", "", "r1", "w1"]

    def refuse(self):
        raise RuntimeError("the server is away\nfor long")

    monkeypatch.setattr(wr.Report, "save", refuse)
    said = views(results, rows, tmp_path)
    assert "the server is away" in said and "\n" not in said
