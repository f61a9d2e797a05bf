"""From a study as written to its frozen table: what is refused, what is shared, what follows the seed."""

import json
import re
import time

import pytest
import yaml

from src.config import CONF, differences, load_config
from src.data.base import DataError
from src.pins import CodeChanged, fingerprint_of, pinned
from src.runs import code
from src.runs.identity import identity
from src.studies.definition import StudyError, parse_seeds, read_study, shipped
from src.studies.freeze import check_all, freeze
from src.studies.states import states
from src.studies.table import find_tables, read_table


@pytest.fixture(scope="module")
def tables():
    """The shipped studies, frozen."""
    return {name: freeze(read_study(name)) for name in shipped()}


def write(folder, **parts):
    folder.mkdir(exist_ok=True)
    study = {"question": "q?", "seeds": 2, "rows": {"baseline": None}, **parts}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return str(folder)


def test_studies_of_the_papers_are_there():
    assert set(shipped()) >= {"table6_geometry", "table7_stages", "range_factor", "groups", "roadmap_datpp", "controls"}


def test_rows_have_the_published_figures(tables):
    def figures(name):
        return [variant.config["published"]["top1"] for variant in tables[name].variants.values()]

    assert figures("table6_geometry") == [82.0, 81.4, 81.7, 81.7, 81.8, 81.8, 81.7]
    assert figures("table7_stages") == [82.0, 81.3, 81.4, 81.9, 81.7]
    assert len(figures("range_factor")) == 14 and figures("range_factor")[2] == 82.04
    for name in ("table6_geometry", "table7_stages", "range_factor"):
        for variant in tables[name].variants.values():
            assert "DAT (CVPR 2022)" in variant.config["published"]["source"]


def test_each_row_differs_from_the_one_it_is_compared_with_and_both_are_in_the_study(tables):
    for name, table in tables.items():
        first, *others = table.variants.values()
        assert name == "range_factor" or first.config["against"] in (first.name, "baseline")
        for variant in others:
            against = table.variants[variant.config["against"]]
            changed = differences(dict(variant.config), dict(against.config))
            assert bool(changed) == (variant is not against), (name, variant.name)


def test_the_same_experiment_is_one_run_in_all_studies_and_by_the_plain_command(tables):
    keys = {
        name: next(job.identity for job in table.jobs if (job.name, job.seed) == ("baseline", 1))
        for name, table in tables.items()
        if "baseline" in table.variants
    }
    plain = load_config("seed=1", "study=other", "name=another")
    assert set(keys.values()) == {identity(pinned(plain, fingerprint_of(plain["data"])))}


def test_a_job_has_the_config_of_the_plain_command(tables):
    table = tables["table6_geometry"]
    for job in (table.job("baseline", 0), table.job("ablate_fixed_bias", 4)):
        plain = load_config(f"experiment={job.name}", f"seed={job.seed}", "study=table6_geometry")
        assert table.config(job) == pinned(plain, fingerprint_of(plain["data"]))
        assert identity(table.config(job)) == job.identity


def test_seeds_come_first_so_that_early_results_can_be_compared(tables):
    names = [job.name for job in tables["groups"].jobs]
    assert names[:3] == list(tables["groups"].variants) and [job.seed for job in tables["groups"].jobs[:3]] == [0, 0, 0]


def test_data_and_model_can_be_others():
    table = freeze(read_study("groups").with_seeds((3, 5)), ["model=dat_tiny", "data.digit_scale=[5.0,6.0]"])
    assert {job.seed for job in table.jobs} == {3, 5}
    for variant in table.variants.values():
        assert variant.config["model"]["name"] == "dat_tiny" and variant.config["data"]["digit_scale"] == [5.0, 6.0]


def test_the_row_has_the_last_word():
    table = freeze(read_study("range_factor"), ["offset_range.factor=7", "recipe.epochs=3"])
    factors = [v.config["model"]["attention"]["deformable"]["offset_range"]["factor"] for v in table.variants.values()]
    assert factors == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 14, 16]
    assert {v.config["recipe"]["epochs"] for v in table.variants.values()} == {3}


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("0,4,2", (0, 4, 2)), ("range(2,5)", (2, 3, 4)), ("[1, 2]", (1, 2)), ("range(2)", (0, 1))],
)
def test_seeds_as_they_are_written(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "", "a", "1,1", "-1,2", "1.5", "range(3,3)", "1e9", "99999999999", "range(5,2)"])
def test_seeds_that_are_none(text):
    with pytest.raises(StudyError) as caught:
        parse_seeds(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"rows": {}}, "rows must be a mapping"),
        ({"rows": {"a": 3}}, "row a may have experiment"),
        ({"rows": {"a/b": None}}, "row a/b can't name a folder"),
        ({"rows": {"a": {"overrides": "x=1"}}}, "must be a list of key=value"),
        ({"rows": {"a": {"overrides": ["seed=1"]}}}, "use seeds="),
        ({"rows": {"a": {"overrides": ["offset"]}}}, "isn't key=value"),
        ({"rows": {"a": {"published": 82.0}}}, "published must be a mapping"),
        ({"seeds": 0}, "at least one"),
        ({"seeds": [0, 0]}, "all different"),
        ({"sedes": 3}, "it must have question, seeds and rows"),
        ({"rows": {"nonsense": None}}, "row nonsense: In 'train': Could not find 'experiment/nonsense'"),
        ({"rows": {"a": {"overrides": ["recipe.epoch=3"]}}}, "row a: Could not override 'recipe.epoch'"),
        ({"rows": {"a": {"overrides": []}, "b": {"overrides": []}}}, "rows a and b are the same run"),
        ({"overrides": ["model.stages.three.offset_groups=3"]}, "row baseline: stage three: offset_groups 3"),
        ({"overrides": ["data=folder", "data.root=/nowhere", "data.num_classes=3"]}, "/nowhere"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(parts, says, tmp_path):
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        check_all(freeze(read_study(write(tmp_path / "study", **parts))))
    assert "\n" not in str(caught.value)


def test_a_study_that_is_no_study(tmp_path):
    with pytest.raises(StudyError, match=r"no study 'nonsense': there are .*controls"):
        read_study("nonsense")
    (tmp_path / "study.yaml").write_text("rows: [a\n")
    with pytest.raises(StudyError) as caught:
        read_study(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_value_made_of_the_seed_is_refused(tmp_path):
    study = write(tmp_path / "study", overrides=["logger.project=p${seed}"], rows={"baseline": None})
    with pytest.raises(StudyError, match=r"logger\.project is made of the seed"):
        freeze(read_study(study))


# ------------------------------------------------------------------------------------------- on disk


def test_a_table_survives_its_file(tmp_path):
    table = freeze(read_study("groups"), [f"runs={tmp_path}"]).with_code("0123456789")
    path = table.write()
    assert read_table(path) == table and find_tables(tmp_path, "groups") == [path]
    assert table.write() == path, "the same table is one file"
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "groups").rename(moved / "groups")
    assert read_table(moved / "groups" / ".tables" / path.name).runs == moved


def test_an_edited_or_cut_table_is_refused(tmp_path):
    path = freeze(read_study("groups"), [f"runs={tmp_path}"]).write()
    text = path.read_text()
    path.write_text(text.replace('"epochs": 10', '"epochs": 9'))
    with pytest.raises(StudyError, match="was changed"):
        read_table(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(StudyError, match="isn't a whole table"):
        read_table(path)


# --------------------------------------------------------------------------------- what identities see


def test_other_data_or_code_is_another_run():
    cfg = load_config()
    one = pinned(cfg, "a" * 10)
    assert identity(one) != identity(pinned(cfg, "b" * 10)) != identity(cfg)
    with pytest.raises(DataError, match="has changed") as caught:
        pinned(one, "b" * 10)
    assert "\n" not in str(caught.value)
    with pytest.raises(CodeChanged):
        pinned({**one, "pinned": {**one["pinned"], "code": "c" * 10}}, "a" * 10)


def test_code_counts_where_it_can_change_a_result(tmp_path, monkeypatch):
    files = code.code_files(load_config())
    assert {
        "src/models/dat.py",
        "src/models/position_bias.py",
        "src/data/digits.py",
        "src/data/scenes.py",
    } <= files.keys()
    assert {"src/classifier.py", "src/optim.py", "src/randomness.py"} <= files.keys()
    assert not {name for name in files if name.startswith(("src/runs/", "src/studies/", "src/models/upstream/"))}
    assert "src/data/cifar.py" not in files and "src/data/cifar.py" in code.code_files(load_config("data=cifar10"))


def test_the_essence_of_code():
    text = '''"""Doc."""
import a  # why

class B:
    """Doc
    of two lines."""
    x: str = "# no comment"  # but this

    def f(self): "doc"; return """not
    a docstring"""
'''
    same = 'import a\nclass B:\n    x: str = "# no comment"\n    def f(self): ; return """not\n    a docstring"""'
    assert code.essence(text) == same
    assert code.essence(text.replace("no comment", "other")) != same
    for path in sorted(CONF.parent.glob("src/**/*.py")):
        essence = code.essence(path.read_text())
        assert len(essence) < len(path.read_text()) or not path.read_text()


# --------------------------------------------------------------------------------------------- scale


def test_ten_thousand_jobs(tmp_path):
    """20 rows, 500 seeds: planned in seconds, and their states read at a thousand and more a second."""
    rows = {f"row{i}": {"overrides": [f"recipe.weight_decay={i + 1}e-3"]} for i in range(20)}
    study = read_study(write(tmp_path / "many", rows=rows, seeds=500))
    began = time.perf_counter()
    table = freeze(study, [f"runs={tmp_path / 'runs'}"])
    planned = time.perf_counter() - began
    assert len(table.jobs) == len({job.identity for job in table.jobs}) == 10_000
    for job in table.jobs[::997]:
        assert identity(table.config(job)) == job.identity
    record = {
        "status": "finished",
        "config": table.config(table.jobs[0]),
        "metrics": {"test/acc1": 0.5},
        "attempts": [{"end": "x"}],
    }
    text = json.dumps(record)
    for job in table.jobs[:3000]:
        table.folder(job).mkdir(parents=True)
        (table.folder(job) / "record.json").write_text(text)
    began = time.perf_counter()
    found = states(table)
    looked = time.perf_counter() - began
    assert sum(state.status == "finished" for state in found) == 3000
    print(f"planned 10,000 jobs in {planned:.1f} s, read 3,000 records among 10,000 jobs in {looked:.2f} s")
