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
# # An ablation of your own
#
# A new offset module and a new position bias, as choices of their config groups, compared with the baseline over seeds.
# Nothing of the project is edited: what you add lies in `own/`, which every command finds.

# %%
import os
import sys
from pathlib import Path

here = Path.cwd()
project = next(folder for folder in (here, *here.parents) if (folder / "conf" / "train.yaml").exists())
os.chdir(project)
sys.path.insert(0, str(project))
for folder in ("own/conf/offset", "own/conf/position_bias", "own/conf/experiment"):
    Path(folder).mkdir(parents=True, exist_ok=True)

# %% tags=["parameters"]
BUDGET = ["recipe.epochs=2"]
SEEDS = 2

# %% [markdown]
# ## Two parts
#
# **Do points have to move one by one?** `OneShift` moves all points of a group together, as the mean query says. Like
# every offset module it is made with `(dim, offset_groups, stride=, kernel_size=)`, and maps queries (B, C, H, W) to
# raw offsets (B, G, Hk, Wk, yx).
#
# **Must the bias be learnt?** `DistanceBias` takes from a key's score what its distance from the query is, each head by
# its own fixed slope, as ALiBi does for text (Press et al., 2022). Like every bias it is made with `(num_heads,
# offset_groups, map_size, key_map_size)`, and maps points (B, G, Hk, Wk, yx) and positions of queries (H, W, yx) to
# what is added to the scores (B, heads, H * W, Hk * Wk).

# %%
# %%writefile own/parts.py
import torch
from einops import rearrange, repeat
from torch import nn


class OneShift(nn.Module):
    """All points of a group move together, by what the mean query says."""

    def __init__(self, dim, offset_groups, *, stride, kernel_size):
        super().__init__()
        self.offset_groups, self.stride = offset_groups, stride
        self.net = nn.Sequential(nn.GELU(), nn.Linear(dim // offset_groups, 2, bias=False))

    def forward(self, q):
        mean = rearrange(q.mean((2, 3)), "b (g c) -> b g c", g=self.offset_groups)
        height, width = (-(-side // self.stride) for side in q.shape[2:])
        return repeat(self.net(mean), "b g yx -> b g h w yx", h=height, w=width)


class DistanceBias(nn.Module):
    """A key's score falls with its distance from the query, by a fixed slope for each head."""

    def __init__(self, num_heads, offset_groups, map_size, key_map_size):
        super().__init__()
        slopes = 2.0 ** -torch.arange(num_heads).float()  # per half map: steep for near heads, flat for far ones
        self.register_buffer("slopes", slopes)

    def forward(self, points, queries):
        keys = rearrange(points, "b g h w yx -> b g (h w) yx")
        distance = torch.cdist(rearrange(queries, "h w yx -> (h w) yx").to(keys), keys)  # (B, G, Q, K)
        of_heads = rearrange(self.slopes, "(g heads) -> g heads 1 1", g=points.shape[1])
        return rearrange(-of_heads * distance[:, :, None], "b g heads q k -> b (g heads) q k")


# %% [markdown]
# ## Two choices, and an experiment for each
#
# `own/parts.py` is named by their `_target_`. A run's name is made of the code that it depends on, this file too:
# change a line, and it is another run.


# %%
def write(path, text):
    Path(path).write_text(text)


write("own/conf/offset/one_shift.yaml", "_target_: own.parts.OneShift\n_partial_: true\n")
write("own/conf/position_bias/distance.yaml", "_target_: own.parts.DistanceBias\n_partial_: true\n")
for group, choice in (("offset", "one_shift"), ("position_bias", "distance")):
    write(
        f"own/conf/experiment/{choice}.yaml",
        f"# @package _global_\ndefaults:\n  - override /{group}: {choice}\nname: {choice}\naxes: [{group}]\n",
    )

# %%
import logging
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # progress is told in lines

import numpy as np
from IPython.display import Markdown

from src.config import build_model, differences, load_config
from src.models.attention.deformable import DeformableAttention
from src.runs.record import find_records
from src.statistics.paired import compare
from src.statistics.verdict import judge
from src.table import markdown, rows_of
from src.training import train

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

COMMON = (*BUDGET, "study=notebook_3", "progress=lines", "logger=csv")
VARIANTS = ("one_shift", "distance")
baseline = load_config(*COMMON)
{name: differences(baseline, load_config(f"experiment={name}", *COMMON)) for name in VARIANTS}

# %% [markdown]
# ## Do they do what they say?
#
# A look at the parts before anything is trained, on a map of unequal sides, which catches axes that were swapped.
# `tests/models/test_models_attention.py` has the contracts of all kinds of parts: a line in its lists holds yours to
# them.

# %%
import torch

net = build_model(load_config("experiment=one_shift", *COMMON))
attention = next(part for part in net.modules() if isinstance(part, DeformableAttention))
x = torch.randn(2, attention.to_q.in_channels, 4, 6)
look = attention.look(x)
moved = look.points[:, :, 0] - look.reference[0]
assert look.points.shape[:4] == (2, 2, 1, 24) and torch.allclose(moved, moved[:, :, :1], atol=1e-6)
assert (moved[0] - moved[1]).abs().max() > 0, "another image, another shift"

net = build_model(load_config("experiment=distance", *COMMON))
attention = next(part for part in net.modules() if isinstance(part, DeformableAttention))
bias = attention.position_bias(look.points.reshape(2, 2, 4, 6, 2), attention.reference_grid.queries((4, 6), x.device))
assert bias.shape == (2, 4, 24, 24) and bias.max() <= 0
bias.amin((0, 2, 3))  # heads, from near to far

# %% [markdown]
# ## Compared with the baseline

# %%
score = {}
for seed in range(SEEDS):
    for name in ("baseline", *VARIANTS):
        metrics = train(load_config(f"experiment={name}", f"seed={seed}", *COMMON))
        score[name, seed] = 100 * metrics["test/acc1"]
        print(f"{name}, seed {seed}: {score[name, seed]:.1f} % of test images right")

# %%
# Of runs that differ in `own/parts.py` alone, the last ones.
records = sorted(find_records(Path(baseline["runs"]) / "notebook_3"), key=lambda record: record["started"])
latest = {(r["name"], r["seed"]): r for r in records if r["config"]["recipe"] == baseline["recipe"]}
Markdown(markdown(rows_of(latest.values())))

# %%
against = np.array([[score[name, s] - score["baseline", s] for s in range(SEEDS)] for name in VARIANTS])
verdicts = judge(compare(against))
Markdown("\n".join(f"- {name}: {verdict.text}." for name, verdict in zip(VARIANTS, verdicts, strict=True)))

# %% [markdown]
# ## As a study
#
# Commands find `own/` too: `python -m src.train experiment=one_shift seed=0`. A study of six seeds, that survives
# crashes:
#
# ```yaml
# # own/my_question/study.yaml
# question: Do points have to move one by one, and must the bias be learnt?
# seeds: 6
# rows:
#   baseline:
#   one_shift:
#   distance:
# ```
# ```bash
# python -m src.study run own/my_question
# python -m src.report own/my_question
# ```
