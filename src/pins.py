"""What a result depends on besides the values of its config: the data and the code, pinned there by their hashes.

A pinned config has an identity that other data at the same path, or another version of the network, don't share.
"""

from typing import TYPE_CHECKING, Any

from src.config import build
from src.imports import uncollected
from src.runs.code import code_files, code_version

if TYPE_CHECKING:  # torch and Lightning take seconds to import, which comparing needn't
    from src.data.base import ImageData


class CodeChanged(ValueError):
    """The code isn't that with which a job was frozen."""


def pinned(cfg: dict[str, Any], data_fingerprint: str) -> dict[str, Any]:
    """`cfg` with `pinned`: the fingerprint of its data and the version of its code.

    Args:
        cfg: a resolved config; if it is pinned already, the pins must hold.

    Raises:
        DataError: the data aren't those that the config was pinned to.
        CodeChanged: nor is the code.
    """
    found = {"data": data_fingerprint, "code": code_version(code_files(cfg))}
    given = cfg.get("pinned", found)
    if given["data"] != found["data"]:
        from src.data.base import DataError

        raise DataError(
            f"data={cfg['data']['name']} has changed: its fingerprint is {found['data']}, this job is pinned to "
            f"{given['data']}; put the old data back, or start a new job on what is there now"
        )
    if given["code"] != found["code"]:
        raise CodeChanged(
            f"the code of {cfg['name']} is version {found['code']}, this job is pinned to {given['code']}; start it "
            f"with the code that it was frozen with, or start a new one"
        )
    return {**cfg, "pinned": found}


def fingerprint_of(data: dict[str, Any]) -> str:
    """Of the data set that `cfg["data"]` describes, once it is found usable.

    Raises:
        DataError: it isn't.
    """
    with uncollected():  # the first one brings torch and Lightning
        dataset: ImageData = build(data)
    dataset.check()
    return dataset.fingerprint()
