"""What is drawn in the README and in this folder, and this folder's page, from four finished runs.

python -m src.train -m study=looking recipe.epochs=8 logger=csv \
    experiment=baseline,control_global,control_shifted_window,control_deformable_convolution
PYTHONPATH=. python experiments/looking/figures.py runs/looking
"""

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from src.runs.record import find_records
from src.visualize import main as visualize

HERE = Path(__file__).parent
ORDER = ("control_global", "control_shifted_window", "control_deformable_convolution", "baseline")
IMAGE, QUERY = 1, "30,34"  # a test image, and a place on its digit
FIELDS = "0:64"  # test images
# At the size of the papers, where a window is a part of the map; untrained, as published.
LARGE_QUERY = "88,160"
LARGE = (
    "model=dat_tiny",
    "data=digits",
    "recipe.initialisation=published",
    "weights=none",
    f"experiment={','.join(ORDER)}",
)
SIZE = {"width": 1120, "height": 920}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    options = parser.parse_args()
    found = {record["name"]: record for record in find_records(options.runs) if record["status"] == "finished"}
    if missing := [name for name in ORDER if name not in found]:
        parser.error(
            f"no finished run of {', '.join(missing)} below {options.runs}; this file's head says how to train"
        )
    runs = [f"run={found[name]['folder']}" for name in ORDER]

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder)
        _run("compare", *runs, f"images={IMAGE}", f"query={QUERY}", f"out={drawn}")
        _run("compare", *LARGE, f"images={IMAGE}", f"query={LARGE_QUERY}", f"out={drawn / 'large'}")
        for folder_of, name in ((drawn, "kinds"), (drawn / "large", "kinds_dat_tiny")):
            for file in folder_of.glob("*/compared-*"):
                if file.suffix == ".svg":
                    shutil.copy(file, HERE / f"{name}{'-dark' * ('-dark' in file.name)}.svg")
        _run("fields", *runs, f"images={FIELDS}", f"out={drawn}")
        for name in ("receptive_fields.csv", "receptive_fields.svg", "receptive_fields-dark.svg"):
            shutil.copy(drawn / name, HERE / name)
        _run(runs[-1], f"images={IMAGE}", f"query={QUERY}", f"out={drawn}")
        _screenshots(next(drawn.glob("*/index.html")))
    (HERE / "README.md").write_text(page(found))


def _run(*words: str) -> None:
    if visualize(words):
        raise SystemExit(2)


def _screenshots(page_of_picture: Path) -> None:
    """The README's: the page in Chromium, in both themes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(page_of_picture.as_uri() + "#block=three.1&mode=query")
            page.locator("#strongest td").first.wait_for()
            page.screenshot(path=HERE / name)
        browser.close()


def page(found: dict[str, dict]) -> str:
    """The folder's README: commands, figures, and the table of receptive fields from its rows."""
    with (HERE / "receptive_fields.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = "\n".join(
        f"| {row['network']} | {row['stage']} | {row['attention'].replace('_', ' ')} "
        f"| {row['r50_px']} ({row['r50_iqr_px']}) | {row['r95_px']} ({row['r95_iqr_px']}) |"
        for row in rows
    )
    accuracies = "\n".join(f"- {name}: {100 * found[name]['metrics']['test/acc1']:.1f} %" for name in ORDER)
    last = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    halves, spread = [float(row["r50_px"]) for row in last], max(float(row["r50_iqr_px"]) for row in last)
    compared = "less" if max(halves) - min(halves) < spread else "more"
    record = found["baseline"]
    epochs, side = record["config"]["recipe"]["epochs"], record["config"]["model"]["image_size"]
    three, four = (f"{side // reduction}x{side // reduction}" for reduction in (16, 32))
    hardware = record["hardware"].get("cpu") or "this machine"
    return f"""# Seeing where it looks

What do the kinds of attention attend to, and how far do they see? Written by
`PYTHONPATH=. python experiments/looking/figures.py runs/looking`, whose head has the command that trains the runs:
`micro` on digits, {epochs} epochs, one seed each, images of {side} pixels. Their test top-1:

{accuracies}

## One query, four kinds

<picture>
<source media="(prefers-color-scheme: dark)" srcset="kinds-dark.svg">
<img src="kinds.svg" alt="The keys of one query in ViT's, Swin's, DCN's and DAT's attention, on a digit scene">
</picture>

Each panel is drawn from the attention module of a trained network, as it looked at this image. On so small a map
({three} pixels in stage three) a window is the whole map. What the kinds have to choose from shows at the papers' size,
DAT-T at 224 pixels, here with untrained weights, whose attention is nearly even:

<picture>
<source media="(prefers-color-scheme: dark)" srcset="kinds_dat_tiny-dark.svg">
<img src="kinds_dat_tiny.svg" alt="The same for untrained networks of DAT-T's size">
</picture>

## Effective receptive fields

<picture>
<source media="(prefers-color-scheme: dark)" srcset="receptive_fields-dark.svg">
<img src="receptive_fields.svg" alt="Effective receptive fields of each stage, by kind of attention">
</picture>

Radii in pixels of the image, medians over {rows[0]["images"]} test images (interquartile range): the discs about the
middle output pixel that hold half (r50) and 95 % (r95) of its absolute gradient (Luo et al. 2016; `receptive.py`).
Stages one and two have the same kinds of attention in all rows. In the last stage half of the field is within
{min(halves):.1f} to {max(halves):.1f} pixels: kinds differ by {compared} than images do (interquartile range up to
{spread:.1f}).

| network | stage | attention | r50, px (IQR) | r95, px (IQR) |
|---|---|---|---|---|
{table}

Recorded on {hardware}, torch {record["versions"]["torch"]}. [Rows](receptive_fields.csv).

What it can't tell: one seed a kind, a small network, and maps of {three} and {four} pixels in the stages that differ,
which a window covers. Differences between rows are of these weights, not of the kinds.
"""


if __name__ == "__main__":
    main()
