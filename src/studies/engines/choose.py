"""The engine that a command asks for, from conf/engine/."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.config import CONF
from src.studies.definition import StudyError
from src.studies.engines.base import Engine
from src.studies.freeze import one_line


def choose_engine(overrides: Sequence[str]) -> Engine:
    """The engine of conf/study.yaml with `overrides`, such as `engine=slurm` and `engine.workers=4`.

    Raises:
        StudyError: one names nothing that exists, or a value can't be.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            chosen = OmegaConf.to_container(compose("study", list(overrides)), resolve=True)
        assert isinstance(chosen, dict)
        engine: Engine = instantiate(chosen["engine"], _convert_="all")
    except HydraException as error:
        raise StudyError(one_line(error.__cause__ or error)) from None
    return engine
