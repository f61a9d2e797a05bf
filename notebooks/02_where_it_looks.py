# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where it looks
#
# Deformable attention reads its keys at points that the queries choose. The papers show them gather on objects, in
# pictures. Here they are drawn for a network of your own, and then measured.

# %%
import os
import sys
from pathlib import Path

here = Path.cwd()
project = next(folder for folder in (here, *here.parents) if (folder / "conf" / "train.yaml").exists())
os.chdir(project)
sys.path.insert(0, str(project))

# %% tags=["parameters"]
BUDGET = ["recipe.epochs=2"]
IMAGES = 200

# %%
import logging
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # progress is told in lines

import matplotlib.pyplot as plt
import torch
from IPython.display import Image, Markdown, display

from src.config import build_model, load_config
from src.looking import rows
from src.looking.answer import answer, evidence
from src.looking.findings import findings, judge_all
from src.looking.masks import masked_images
from src.looking.measures import keys_of, measure
from src.looking.quantities import MEASURES, OBJECT, STATISTICS, statistics_of
from src.runs.record import find_records
from src.training import train
from src.visualization import figures
from src.visualization.networks import of_run
from src.visualization.subjects import from_tests
from src.visualization.view import view

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
# %matplotlib inline

# %% [markdown]
# ## A network
#
# A run of your own will do as well: `record["folder"]` is where it lies.

# %%
cfg = load_config(*BUDGET, "study=notebook_2", "progress=lines", "logger=csv", "watch.points=1")
train(cfg)
[record] = [r for r in find_records(Path(cfg["runs"]) / "notebook_2") if r["config"]["recipe"] == cfg["recipe"]][:1]
network = of_run(Path(record["folder"]))

# %% [markdown]
# While it trained, its points were drawn every epoch (`watch.points`), on the same images; W&B shows the same pictures.

# %%
*_, last = sorted((Path(record["folder"]) / "points").iterdir())
display(Image(last))

# %% [markdown]
# ## Its points, its keys, and what a query is made of
#
# Blue: where points start. Orange: where keys are read. `python -m src.visualize run=...` writes these for every block,
# and a page in which a query is picked by a click.

# %%
[subject] = from_tests(network.data, [1])
seen = view(network.net, subject, title=network.title)
block = seen.blocks["three.1"]
display(figures.offsets(block))
display(figures.keys(block))

# %%
display(figures.query(seen, "three.1", (32, 32)))

# %% [markdown]
# ## Measured
#
# Digit scenes know where the strokes of their whole digit are. So the pictures can be asked: how many points are on it?
# More than reference points are, and more than the points of *other* images are there? The second is what tells
# following the image from keeping to a place.

# %%
images = masked_images(network.data, split="test", count=IMAGES)
untrained = build_model(record["config"])
share = ("reference", "points", "points_other_image", "mass", "mass_other_image")
lines = ["| block | network | " + " | ".join(f"{name}, %" for name in share) + " | on it, px | off it, px |"]
lines.append("|---" * (len(share) + 4) + "|")
measured = {}
for title, net in (("untrained", untrained), ("trained", network.net)):
    for name, keys in keys_of(net, images).items():
        found = measure(keys, images.regions[OBJECT])
        measured[title, name] = torch.stack([found[m] for m in MEASURES], -1).numpy()
        cells = [f"{100 * found[m].nanmean():.1f}" for m in share]
        cells += [f"{found[m].nanmean():.1f}" for m in ("length_on", "length_off")]
        lines.append(f"| {name} | {title} | " + " | ".join(cells) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# Image by image: how much more of its points each has on its digit than other images' points have there.

# %%
at = list(STATISTICS).index("points above other images")
figure, axes = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True)
for axis, name in zip(axes, ("three.1", "four.1"), strict=True):
    values = [statistics_of(measured[title, name])[:, at] for title in ("untrained", "trained")]
    axis.hist(values, bins=21, label=("untrained", "trained"))
    axis.set_title(f"block {name}")
    axis.set_xlabel("points above other images', %")
axes[0].set_ylabel("images")
_ = axes[0].legend(frameon=False)
# %% [markdown]
# One run is an anecdote. Claims need seeds, and a rule that was fixed before: `src/looking/findings.py`.

# %%
one = {name: judge_all(findings(statistics_of(measured["trained", name])[None])) for name in ("three.1", "four.1")}
one

# %% [markdown]
# ## The recorded study
#
# Its rows are in `experiments/where_it_looks/`: networks of several seeds, with and without offsets, epoch by epoch.
# No weights are needed to read them.

# %%
kept = rows.read(Path("experiments/where_it_looks"))
Markdown(f"{answer(kept)}\n\n" + "\n".join(f"- {sentence}" for sentence in evidence(kept)))

# %%
Image("experiments/where_it_looks/figures/course.png")

# %% [markdown]
# With images and masks of your own, `photos/images/NAME.jpg` and `photos/masks/NAME.png`, and runs that were trained on
# photographs:
#
# ```bash
# python -m src.where_it_looks measure runs/my_study -o found --masks photos
# ```
