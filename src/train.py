"""Train one variant, or several with -m: `python -m src.train experiment=ablate_no_offset seed=0`."""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.commands import end_with_reader, one_line_errors
from src.config import resolve
from src.imports import uncollected


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float:
    """One job; returns the best validation accuracy, so that sweepers can optimise it."""
    several = HydraConfig.get().mode is RunMode.MULTIRUN
    with one_line_errors(several=several, again="goes on from the last checkpoint"):
        plain = resolve(cfg)
        if several and (plain["trainer"]["devices"] != 1 or plain["trainer"]["strategy"] != "auto"):
            from src.ranks import train_apart

            return train_apart(plain, list(HydraConfig.get().overrides.task))
        with uncollected():  # here: torch and Lightning take seconds, which --help and a wrong override needn't
            from src.training import train

        return train(plain)["val/acc1"]


if __name__ == "__main__":
    end_with_reader()
    main()
