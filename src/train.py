"""Train one variant, or several with -m: `python -m src.train experiment=ablate_no_offset seed=0`."""

import logging
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from src.config import resolve
from src.data.base import DataError
from src.models.geometry import GeometryError
from src.ranks import JobFailed, train_apart
from src.runs.session import RunningElsewhere, status_of
from src.training import train

log = logging.getLogger(__name__)

INTERRUPTED = 130  # exit code, as of a shell, after Ctrl-C and SIGTERM

# What the user can put right: said in one line, without a traceback.
USER_ERRORS = (GeometryError, DataError, RunningElsewhere, JobFailed, MisconfigurationException, ValueError)


class NoResult(CompactHydraException):
    """A job of a multirun has failed. Hydra goes on with the others, then prints this without a traceback."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """One job; returns the best validation accuracy, so that sweepers can optimise it."""
    several = HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        plain = resolve(cfg)
        if several and (plain["trainer"]["devices"] != 1 or plain["trainer"]["strategy"] != "auto"):
            return train_apart(plain, list(HydraConfig.get().overrides.task))
        return train(plain)["val/acc1"]
    except USER_ERRORS as error:
        log.error("%s", error)
        if several:
            raise NoResult(str(error)) from error  # leaving the process would end the other jobs
        sys.exit(2)
    except Exception as error:
        if several:  # now: Hydra prints the first one only, after the last job
            log.error("%s: %s", type(error).__name__, error)
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        if status_of(error) != "interrupted":
            raise
        log.error("interrupted; the same command goes on from the last checkpoint")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
