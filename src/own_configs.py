"""Config groups of the user's own: what lies in `own/conf`, or where DATLAB_CONF says, is found as what is in `conf`.

`own/conf/offset/mine.yaml` makes `offset=mine` a choice, for every command; its `_target_` may be `own.parts.Mine`, in
`own/parts.py`. What `conf` has under the same name comes first, so that no experiment of the project changes.
"""

import os
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins

FOLDER = Path("own") / "conf"  # below the folder that a command is started in
VARIABLE = "DATLAB_CONF"


class OwnConfigs(FileConfigSource):
    """Files of the user's folder, where Hydra's search path has `own://conf`; nothing where there is no folder."""

    def __init__(self, provider: str, path: str):
        super().__init__(provider, path)
        self.path = os.environ.get(VARIABLE) or str(FOLDER.absolute())

    @staticmethod
    def scheme() -> str:
        return "own"

    def available(self) -> bool:
        return True  # also without the folder: Hydra would warn of it in every command

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return super().list(config_path, results_filter) if self.is_group(config_path) else []


def register() -> None:
    """Makes `own://conf` known to Hydra; again and again does no harm."""
    Plugins.instance().register(OwnConfigs)
