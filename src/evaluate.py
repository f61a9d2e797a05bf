"""Test given weights once: `python -m src.evaluate model=dat_tiny model.weights=FILE data=imagenet data.root=...`."""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.commands import end_with_reader, one_line_errors
from src.config import resolve
from src.imports import uncollected


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float:
    """One job; returns the accuracy."""
    several = HydraConfig.get().mode is RunMode.MULTIRUN
    with one_line_errors(several=several, again="starts again"):
        plain = resolve(cfg)
        if several and (plain["trainer"]["devices"] != 1 or plain["trainer"]["strategy"] != "auto"):
            raise ValueError("several evaluations on several devices: start them one by one, without -m")
        with uncollected():  # here: torch and Lightning take seconds, which --help and a wrong override needn't
            from src.evaluation import evaluate

        return evaluate(plain)["metrics"]["test/acc1"]


if __name__ == "__main__":
    end_with_reader()
    main()
