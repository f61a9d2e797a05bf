"""A run's checkpoints as W&B artifacts, which W&B uploads from where they lie.

    artifact <study>-<variant>-<identity>, type "model"
        best.ckpt   alias "best": the weights that validation chose
        last.ckpt   alias "latest": what training ended with

W&B would copy each file into `~/.local/share/wandb`, at once, and the uploaded ones into `~/.cache/wandb`: twice the
size of all checkpoints of a study in a home folder, which nothing ever empties. Here neither copy is made. In return
the files must stay where they are until they are uploaded: offline, until `python -m src.sync`.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import wandb
from wandb.env import DATA_DIR

from src.runs.process import rank
from src.runs.session import BEST, CHECKPOINT, Run

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)

LONGEST_NAME = 128  # characters that W&B allows
STAGING = Path("wandb") / "staging"  # what W&B copies before it uploads, below a run's folder


def log_checkpoints(logger: "WandbLogger", run: Run) -> None:
    """The checkpoints of a run that has its result, as two versions of one artifact.

    A run is not lost over this: what goes wrong is said in a warning.
    """
    if rank() > 0:
        return
    record = run.record.data
    about = {key: record[key] for key in ("study", "name", "seed", "identity", "metrics")}
    about["commit"] = record["git"]["commit"]
    name = artifact_name(record["study"], record["name"], record["identity"])
    try:
        with staged_in(run.folder / STAGING):
            # In this order: W&B puts "latest" on each version that it gets.
            for path, aliases in ((BEST, ["best"]), (CHECKPOINT, [])):
                artifact = wandb.Artifact(name, "model", metadata={**about, "file": path.name})
                _add(artifact, run.folder / path)
                logger.experiment.log_artifact(artifact, aliases=aliases)
    except Exception as error:  # full disks, missing files, and whatever W&B may raise
        log.warning("the checkpoints are not in W&B (%s); they are in %s", error, run.folder / CHECKPOINT.parent)


def artifact_name(study: str, variant: str, identity: str) -> str:
    """`<study>-<variant>-<identity>` with the characters, and as many of them, as W&B allows."""
    name = re.sub(r"[^\w.-]", "-", f"{study}-{variant}", flags=re.ASCII)
    return f"{name[: LONGEST_NAME - 1 - len(identity)]}-{identity}"


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """W&B's copies of what is logged in this block go below `folder`, unless WANDB_DATA_DIR says where.

    They are needed until the run is uploaded.
    """
    before = os.environ.get(DATA_DIR)
    os.environ[DATA_DIR] = before or str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_DIR]


def _add(artifact: wandb.Artifact, path: Path) -> None:
    # Absolute: the upload may start from another working directory.
    if path.is_dir():  # of a strategy that shards
        artifact.add_dir(str(path.absolute()), name=path.name, policy="immutable", skip_cache=True)
    else:
        artifact.add_file(str(path.absolute()), name=path.name, policy="immutable", skip_cache=True)
