"""`model=timm/NAME`: a config for every classifier of timm's, without a file for each."""

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

PREFIX = "model/timm/"


class TimmConfigs(ConfigSource):
    """Answers for `conf/model/timm/NAME.yaml` where Hydra's search path has `timm://`.

    timm is imported by the first config that is asked for, since that takes seconds.
    """

    @staticmethod
    def scheme() -> str:
        return "timm"

    def load_config(self, config_path: str) -> ConfigResult:
        """
        Raises:
            MissingConfigException: timm has no such model; Hydra prints the message without a traceback.
        """
        from src.timm_models import UnknownModel, own_size, require_known

        name = config_path.removeprefix(PREFIX)
        try:
            require_known(name)
        except UnknownModel as error:
            raise MissingConfigException(str(error), missing_cfg_file=config_path) from None
        model = {
            "_target_": "src.timm_models.timm_classifier",
            "name": name,  # a label for tables
            "architecture": name,
            "image_size": own_size(name),
            "num_classes": "${data.num_classes}",
            "drop_path_rate": 0.0,
        }
        # Global, so that its runs bear its name and not the baseline's; an experiment, which comes later, renames.
        config = OmegaConf.create({"name": name, "model": model})
        return ConfigResult(self.provider, self.full_path(), config, header={"package": "_global_"})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path == "model"

    def is_config(self, config_path: str) -> bool:
        return config_path.startswith(PREFIX) and config_path != PREFIX

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """One line for all, which Hydra shows with what else `model` may be: a thousand names would bury that."""
        return ["timm/NAME"] if config_path == "model" and results_filter != ObjectType.GROUP else []


def register() -> None:
    """Makes `timm://` known to Hydra; again and again does no harm."""
    Plugins.instance().register(TimmConfigs)
