"""Networks of all the published parts, small enough for tests that trace them."""

import torch

from src.config import build_model, load_config

DATPP = (
    *("stem=overlapped", "downsampling=overlapped", "local_perception=depthwise", "feed_forward=convolutional"),
    *("offset_range=clamped", "reference_grid=shifted"),
)
# What follows conf/model/dat_tiny.yaml and datpp_tiny.yaml, stage by stage.
KINDS = {
    "dat": (["window", "shifted_window"], ["window", "shifted_window"], ["window", "deformable"], ["deformable"]),
    "datpp": (["neighborhood", "deformable"], ["neighborhood", "deformable"], ["deformable"], ["deformable"]),
}
STRIDES = {"dat": (4, 2, 1, 1), "datpp": (4, 2, 2, 1)}


def small(release, *, stages=4, image_size=64, overrides=(), drop_path_rate=0.0, attention=None):
    """DAT ("dat") or DAT++ ("datpp") of the last `stages` stages of the micro model, every part with weights to see."""
    parts = DATPP if release == "datpp" else ("stem=patch",)
    cfg = load_config("model=micro", "recipe.initialisation=published", *parts, *overrides)
    model = cfg["model"]
    kinds = attention or KINDS[release][-stages:]
    names = list(model["stages"])[-stages:]
    model["stages"] = {name: model["stages"][name] for name in names}
    model |= {"image_size": image_size, "table_image_size": image_size, "drop_path_rate": drop_path_rate}
    for stage, kind, stride in zip(model["stages"].values(), kinds, STRIDES[release][-stages:], strict=True):
        stage |= {"attention": kind, "depth": len(kind), "stride": stride}
    torch.manual_seed(0)
    net = build_model(cfg).eval()
    with torch.no_grad():  # tables begin near zero; larger ones show
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return net
