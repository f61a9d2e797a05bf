"""Energy is what counters say, over all attempts, and nothing where there are none."""

import sys
from types import SimpleNamespace

import pytest

from src.callbacks import energy
from src.callbacks.energy import Energy, Increase, nvml_counters, rapl_counters

WRAP = 1000.0  # joules


@pytest.fixture
def powercap(tmp_path):
    """Two packages, of which one has a part that is counted in it."""
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text(f"{WRAP * 1e6:.0f}\n")
    return tmp_path


def counted(powercap, first, second):
    for name, joules in (("intel-rapl:0", first), ("intel-rapl:0:0", 7), ("intel-rapl:1", second)):
        (powercap / name / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")


def trainer(device="cpu", **other):
    strategy = SimpleNamespace(root_device=SimpleNamespace(type=device))
    return SimpleNamespace(strategy=strategy, num_nodes=1, is_global_zero=True, device_ids=[0], **other)


def test_packages_are_added_up_over_wraps_and_attempts(powercap, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", powercap)
    counted(powercap, 900, 0)
    first = Energy()
    first.setup(trainer(), None, "fit")
    assert (first.source, first.kilojoules) == ("RAPL", 0)
    counted(powercap, 950, 10)
    first.on_train_epoch_end(None, None)
    counted(powercap, 30, 20)  # the first package's counter has begun anew
    first.on_train_epoch_end(None, None)
    assert first.kilojoules == pytest.approx((50 + 10 + 80 + 10) / 1e3)

    second = Energy()
    second.setup(trainer(), None, "fit")
    second.load_state_dict(first.state_dict())
    counted(powercap, 40, 20)
    second.on_test_end(None, None)
    assert second.kilojoules == pytest.approx(0.160)


def test_a_second_setup_doesnt_count_twice(powercap, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", powercap)
    counted(powercap, 0, 0)
    callback = Energy()
    callback.setup(trainer(), None, "fit")
    callback.setup(trainer(), None, "test")
    counted(powercap, 5, 0)
    callback.on_test_end(None, None)
    assert callback.kilojoules == pytest.approx(0.005)


def test_counters_for_roots_eyes_only_are_none(powercap):
    assert rapl_counters(powercap) == []  # energy_uj isn't there; as root, modes don't keep anybody out
    assert rapl_counters(powercap / "nowhere") == []


def test_without_counters_there_is_no_energy(monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    callback = Energy()
    callback.setup(trainer(), None, "fit")
    callback.on_train_epoch_end(None, None)
    assert (callback.source, callback.kilojoules) == (None, None)


def test_gpus_are_found_by_their_uuid(monkeypatch):
    consumed = {"GPU-b": 5_000}  # millijoules
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: consumed[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="ab"[device]))
    ((read, wrap),) = nvml_counters([1])
    grown = Increase(read, wrap)
    consumed["GPU-b"] += 2_500
    assert grown() == pytest.approx(2.5)
    assert nvml_counters([0]) == [], "a GPU that doesn't tell is no error"
