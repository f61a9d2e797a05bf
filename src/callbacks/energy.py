"""The energy of a run, where the hardware tells it: counters, not estimates."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

log = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")  # RAPL: one counter per processor package; often for root's eyes only

Counter = Callable[[], float]


class Energy(L.Callback):
    """Adds up joules from the start of training to the end of the test, over the attempts of a resumed run.

    On GPUs those of this machine that the run uses, by NVML; else of all processor packages, by RAPL, whatever else
    they compute meanwhile. Runs on several machines aren't measured: nobody would add them up.

    Attributes:
        source: "NVML" or "RAPL"; None where nothing tells.
    """

    def __init__(self) -> None:
        self.source: str | None = None
        self._counters: list[Counter] = []
        self._joules = 0.0

    @property
    def kilojoules(self) -> float | None:
        return self._joules / 1e3 if self.source else None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._counters or trainer.num_nodes > 1 or not trainer.is_global_zero:
            return
        if trainer.strategy.root_device.type == "cuda":
            self.source, readings = "NVML", nvml_counters(trainer.device_ids)
        else:
            self.source, readings = "RAPL", rapl_counters(POWERCAP)
        self._counters = [Increase(read, wrap) for read, wrap in readings]
        if not self._counters:
            self.source = None

    # RAPL's counters begin anew after an hour or so, so they are read more often than that.
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read()

    def _read(self) -> None:
        self._joules += sum(counter() for counter in self._counters)

    def state_dict(self) -> dict[str, Any]:
        return {"joules": self._joules}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._joules = state_dict["joules"]


class Increase:
    """By how much a counter has grown since it was last asked.

    Args:
        wrap: the value at which it begins anew; 0 for one that doesn't.
    """

    def __init__(self, read: Counter, wrap: float) -> None:
        self._read, self._wrap, self._last = read, wrap, read()

    def __call__(self) -> float:
        now = self._read()
        grown, self._last = now - self._last, now
        return grown if grown >= 0 else grown + self._wrap


def nvml_counters(devices: list[int]) -> list[tuple[Counter, float]]:
    """Joules of these CUDA devices since the driver was loaded; empty for GPUs older than Volta."""
    try:
        import pynvml

        pynvml.nvmlInit()
        found: list[tuple[Counter, float]] = []
        for device in devices:
            # CUDA may number devices otherwise than NVML, which doesn't know CUDA_VISIBLE_DEVICES.
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # or an error, here where it is caught
            found.append((partial(_scaled, pynvml.nvmlDeviceGetTotalEnergyConsumption, handle, 1e-3), 0.0))
        return found
    except Exception as error:  # an old driver, a slice of a GPU, no library: energy is worth no run
        log.info("energy isn't measured: %s", error)
        return []


def rapl_counters(powercap: Path) -> list[tuple[Counter, float]]:
    """Joules of every processor package, and where each counter begins anew; empty where they can't be read."""
    found: list[tuple[Counter, float]] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's too; intel-rapl:0:0 and so on are parts of packages
        if zone.name.count(":") != 1:
            continue
        try:
            wrap = 1e-6 * _number_in(zone / "max_energy_range_uj")
            _number_in(zone / "energy_uj")
        except (OSError, ValueError):
            return []
        found.append((partial(_scaled, _number_in, zone / "energy_uj", 1e-6), wrap))
    return found


def _scaled(read: Callable[[Any], float], of: Any, unit: float) -> float:
    return unit * read(of)


def _number_in(file: Path) -> float:
    return float(file.read_text())
