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
# # The first ablation
#
# From a fresh clone to a table: what is deformable attention worth here, if its points may not move?
#
# ```bash
# git clone ... datlab && cd datlab
# python3 -m venv .venv && source .venv/bin/activate
# pip install -c constraints.txt -e ".[notebooks]" && jupyter lab notebooks
# ```

# %%
import os
import sys
from pathlib import Path

# The folder of the project: runs go to `runs/` in it.
here = Path.cwd()
project = next(folder for folder in (here, *here.parents) if (folder / "conf" / "train.yaml").exists())
os.chdir(project)
sys.path.insert(0, str(project))

# %% [markdown]
# Two epochs and two seeds show how it goes in some minutes on a laptop. For a result take `BUDGET = []`, which is ten
# epochs, and six seeds or more.

# %% tags=["parameters"]
BUDGET = ["recipe.epochs=2"]
SEEDS = 2

# %%
import logging
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # progress is told in lines

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

from src.config import build, differences, load_config
from src.runs.record import find_records
from src.statistics.paired import compare
from src.statistics.verdict import judge
from src.studies.power import seeds_needed, smallest_p
from src.table import markdown, rows_of
from src.training import train

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

# %% [markdown]
# ## An experiment is a config, and an ablation is a difference
#
# `conf/train.yaml` is the baseline, whole. `conf/experiment/ablate_no_offset.yaml` changes one thing of it: points stay
# on their grid, which shows wherever the config refers to that part. `python -m src.train` takes the same words.

# %%
COMMON = (*BUDGET, "study=notebook_1", "progress=lines", "logger=csv")
VARIANTS = ("baseline", "ablate_no_offset")
configs = {name: load_config(f"experiment={name}", *COMMON) for name in VARIANTS}
differences(configs["baseline"], configs["ablate_no_offset"])

# %% [markdown]
# ## The task
#
# A whole handwritten digit, somewhere among pieces of others: it has to be found before it can be named.

# %%
data = build(configs["baseline"]["data"])
figure, axes = plt.subplots(1, 5, figsize=(8, 1.9))
for number, axis in enumerate(axes):
    scene = data.scene(number, "test")
    axis.imshow(scene.image[0], cmap="gray")
    axis.set_title(f"a {scene.label}")
    axis.axis("off")

# %% [markdown]
# ## Training
#
# Each run has a folder that is named by all that determines its result. Run this cell again: what is finished isn't
# computed twice, and what was interrupted goes on.

# %%
score = {}
for seed in range(SEEDS):
    for name in VARIANTS:
        metrics = train(load_config(f"experiment={name}", f"seed={seed}", *COMMON))
        score[name, seed] = 100 * metrics["test/acc1"]
        print(f"{name}, seed {seed}: {score[name, seed]:.1f} % of test images right")

# %% [markdown]
# ## The table
#
# The published column is of another network, data set and schedule: only the order of its rows could be compared.

# %%
records = find_records(Path(configs["baseline"]["runs"]) / "notebook_1")
Markdown(markdown(rows_of(r for r in records if r["config"]["recipe"] == configs["baseline"]["recipe"])))

# %% [markdown]
# ## May it be said?
#
# Runs of one seed begin with the same weights, wherever a layer is the same, and see the same images. So it is their
# difference, seed by seed, that is judged, by a rule that was fixed before anybody saw a number.

# %%
difference = [score["ablate_no_offset", seed] - score["baseline", seed] for seed in range(SEEDS)]
[verdict] = judge(compare(np.array([difference])))
Markdown(f"Without offsets: **{verdict.text}**.")

# %%
Markdown(
    f"With {SEEDS} seeds no p below {smallest_p(SEEDS, 1):.2g} can come out, whatever is true; "
    f"{seeds_needed(0.05, 1)} seeds can reach 0.05."
)

# %% [markdown]
# ## From here
#
# The same as a study, in parallel, that survives crashes, with a report: `experiments/table6_geometry/study.yaml` has
# all rows of the paper's table.
#
# ```bash
# python -m src.study run table6_geometry recipe.epochs=5 seeds=8
# python -m src.report table6_geometry
# ```
#
# Next: [where it looks](02_where_it_looks.ipynb), and [an ablation of your own](03_your_own_ablation.ipynb).
