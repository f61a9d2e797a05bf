"""The README says what is recorded and what is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.complexity import count_macs, count_parameters, on_meta
from src.config import CONF, build_model, load_config
from src.readme import ROOT, pages, renewed

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.parent.name)
def test_pages_quote_what_is_recorded(page):
    assert renewed(page) == page.read_text()


def test_the_demo_and_the_first_study_are_quoted():
    assert "| baseline | 2 |" in README
    assert "experiments/table6_geometry/figures/forest.svg" in README


def test_every_source_file_is_in_the_tree():
    names = [path.name for path in sorted(Path(ROOT / "src").rglob("*.py")) if path.name != "__init__.py"]
    assert [name for name in names if name not in README] == []


def test_every_experiment_is_listed():
    listed = re.findall(r"`(\w+)`", README.partition("## Experiments")[2].partition("## Models")[0])
    full = [f"ablate_deformable{name}" if name.startswith("_in") else name for name in listed]
    assert [path.stem for path in (CONF / "experiment").glob("*.yaml") if path.stem not in full] == []


def test_published_accuracies_are_those_of_the_experiments():
    section = README.partition("## Experiments")[2].partition("Controls put")[0]
    seen = 0
    for names, figures in re.findall(r"^\| (`[^|]+) \|[^|]+\| ([\d., ]+) \|$", section, re.MULTILINE):
        first, *others = re.findall(r"`(\w+)`", names)
        full = [first, *(f"ablate_deformable{name}" for name in others)]
        for name, figure in zip(full, figures.split(", "), strict=True):
            assert load_config(f"experiment={name}")["published"]["top1"] == float(figure), name
            seen += 1
    assert seen == 11  # seven rows of Table 6 and five of Table 7 share the baseline


@pytest.mark.parametrize(
    "row", re.findall(r"^\| `(micro|dat(?:pp)?_\w+)`.*?\| ([\d.]+) M \| ([\d.]+) \|", README, re.MULTILINE)
)
def test_sizes_are_counted(row):
    name, params, macs = row
    cfg = load_config(f"model={name}", *([] if name == "micro" else ["data.num_classes=1000"]))
    net = on_meta(lambda: build_model(cfg))
    assert f"{count_parameters(net) / 1e6:.2f}" == params
    assert f"{count_macs(net, cfg['model']['image_size']) / 1e9:.2f}" == macs


@pytest.mark.parametrize(
    "row",
    re.findall(r"^\| `((?:control|roadmap)_\w+)` \|[^|]+\|(?: ([\d.]+) M \|)? ([\d.]+) \|$", README, re.MULTILINE),
)
def test_costs_of_controls_and_of_the_roadmap_are_counted(row):
    name, params, macs = row
    model = "datpp_tiny" if name.startswith("roadmap") else "dat_tiny"
    net = on_meta(lambda: build_model(load_config(f"experiment={name}", f"model={model}", "data.num_classes=1000")))
    assert not params or f"{count_parameters(net) / 1e6:.2f}" == params
    assert f"{count_macs(net, 224) / 1e9:.2f}" == macs


def test_the_example_in_python_runs():
    code = re.search(r"```python\n(.*?)```", README.partition("### In your own code")[2], re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 10
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "(1, 512, 8, 10)] [64, 128, 256, 512]" in out and "torch.Size([2, 10])" in out


def test_the_example_of_recording_runs(capsys):
    code = re.search(r"```python\n(.*?)```", README.partition("## Seeing where it looks")[2], re.DOTALL)[1]
    exec(code, {})
    points, moved, weights, on_map = re.findall(r"\[[^]]+\]", capsys.readouterr().out)
    assert (points, moved, weights, on_map) == ("[2, 2, 1, 16, 2]",) * 2 + ("[2, 4, 16, 16]", "[2, 16, 16]")
