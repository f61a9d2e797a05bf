"""Notebooks are in step with their sources, hold no outputs, and run from their first cell to the last."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from smallest_run import SMALLEST

ROOT = Path(__file__).parents[1]

pytest.importorskip("nbclient", reason='pip install -e ".[notebooks]"')
spec = importlib.util.spec_from_file_location("build_notebooks", ROOT / "notebooks" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

TINY = {
    "01_first_ablation": {"BUDGET": list(SMALLEST), "SEEDS": 2},
    "02_where_it_looks": {"BUDGET": list(SMALLEST), "IMAGES": 6},
    "03_your_own_ablation": {"BUDGET": list(SMALLEST), "SEEDS": 2},
}
SHOWS = {
    "01_first_ablation": ["| ablate_no_offset | 2 |", "Without offsets: **cannot tell with 2 seeds", "image/png"],
    "02_where_it_looks": ["image/png", "The papers' observation", "| three.1 | trained |"],
    "03_your_own_ablation": ["| one_shift | 2 |", "- distance: cannot tell with 2 seeds"],
}


@pytest.mark.parametrize("source", build.sources(), ids=lambda source: source.stem)
def test_a_notebook_is_its_source_without_outputs(source):
    text = source.with_suffix(".ipynb").read_text()
    assert text == build.text_of(build.notebook(source)), "python notebooks/build.py writes it anew"
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)


def test_all_notebooks_are_run_here_and_rendered():
    names = {source.stem for source in build.sources()}
    assert names == set(TINY) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert names == {path.stem for path in build.RENDERED.glob("*.md")}


@pytest.mark.parametrize("source", build.sources(), ids=lambda source: source.stem)
def test_a_rendered_page_shows_all_cells_and_no_machine(source):
    text = (build.RENDERED / f"{source.stem}.md").read_text()
    for cell in build.notebook(source).cells:
        if cell.cell_type == "code":
            assert f"```python\n{cell.source.strip()}\n```" in text, "make notebooks renders it anew"
    assert not [
        word for word in ("site-packages", str(Path.home()), "Warning:", "Traceback", "<Figure size") if word in text
    ]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert sorted(pictures) == sorted(f"{source.stem}/{path.name}" for path in (build.RENDERED / source.stem).glob("*"))


def test_a_parameter_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no NOTHING"):
        build.with_parameters(build.notebook(build.sources()[0]), NOTHING=1)


@pytest.mark.parametrize("name", TINY)
def test_runs_from_the_first_cell_to_the_last(name, tmp_path, monkeypatch):
    # A project of its own, so that runs and parts don't land in this one.
    for part in ("src", "conf", "experiments"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("DATLAB_CONF", raising=False)
    made = build.with_parameters(build.notebook(ROOT / "notebooks" / f"{name}.py"), **TINY[name])
    shown = json.dumps([cell.get("outputs", []) for cell in build.execute(made, tmp_path / "notebooks").cells])
    assert [text for text in SHOWS[name] if text not in shown] == []
    assert "Traceback" not in shown
    assert shown.count("<Figure size") == shown.count("image/png") - (2 if name == "02_where_it_looks" else 0)
    assert os.listdir(tmp_path / "runs")
