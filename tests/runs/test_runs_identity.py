import copy

import pytest

from src.runs.identity import NOT_IDENTITY, identity, run_folder

CFG = {
    "study": "offset",
    "name": "no_offset",
    "axes": ["offset"],
    "question": "does it matter?",
    "published": {"acc1": 0.82},
    "runs": "results",
    "logger": {"project": "datlab"},
    "progress": None,
    "rerun": False,
    "seed": 0,
    "offset": {"_target_": "src.models.offset.ZeroOffset", "stride": 2},
    "model": {"weights": {"path": "a.safetensors", "sha256": "0123"}},
    "data": {"root": "data", "download": True, "workers": 2, "batch_size": 64},
    "trainer": {
        "max_epochs": 3,
        "accelerator": "auto",
        "devices": 1,
        "precision": 32,
        "enable_progress_bar": True,
        "enable_model_summary": True,
        "log_every_n_steps": 50,
        "default_root_dir": None,
    },
}


def with_value(path, value):
    cfg = copy.deepcopy(CFG)
    *parents, last = path.split(".")
    at = cfg
    for key in parents:
        at = at[key]
    at[last] = value
    return cfg


def leaves(cfg, inside=""):
    for key, value in cfg.items():
        path = f"{inside}{key}"
        if isinstance(value, dict):
            yield from leaves(value, path + ".")
        else:
            yield path


def test_does_not_depend_on_the_order_of_keys():
    def reverse(value):
        return {k: reverse(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    assert identity(reverse(CFG)) == identity(CFG)
    assert len(identity(CFG)) == 10 and int(identity(CFG), 16) >= 0


@pytest.mark.parametrize("path", NOT_IDENTITY)
def test_ignores_what_cannot_change_the_result(path):
    assert identity(with_value(path, "something else")) == identity(CFG)


COUNTING = [path for path in leaves(CFG) if not any(f"{path}.".startswith(f"{p}.") for p in NOT_IDENTITY)]


@pytest.mark.parametrize("path", COUNTING)
def test_every_other_value_counts(path):
    assert identity(with_value(path, "something else")) != identity(CFG)
    without = with_value(path, None)
    assert identity(without) != identity(CFG)


def test_counting_holds_what_changes_numbers():
    chosen = {"seed", "offset.stride", "trainer.devices", "trainer.precision", "data.batch_size"}
    assert chosen <= set(COUNTING)


def test_a_name_is_only_ignored_at_its_own_place():
    inner = {"optimizer": {"name": "adamw", "root": "x"}}
    assert identity(inner) != identity({"optimizer": {"name": "sgd", "root": "x"}})


def test_equal_values_written_differently_are_equal():
    assert identity({"lr": 1, "betas": (0.9, 0.999)}) == identity({"lr": 1.0, "betas": [0.9, 0.999]})
    assert identity({"lr": 1}) != identity({"lr": True})
    assert identity({"lr": 1}) != identity({"lr": "1"})


@pytest.mark.parametrize("value", ["${model.dim}", "???"])
def test_refuses_a_config_that_is_not_resolved(value):
    with pytest.raises(ValueError, match=r"data\.size.*resolve=True"):
        identity({"data": {"size": value}})


def test_refuses_objects():
    with pytest.raises(TypeError, match="net is a object"):
        identity({"net": object()})


def test_run_folder(tmp_path):
    folder = run_folder(tmp_path, "offset", "no_offset", 0, "0123456789")
    assert folder == tmp_path / "offset" / "no_offset" / "seed0-0123456789"


@pytest.mark.parametrize("bad", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\0", "x" * 129])
def test_run_folder_refuses_names_that_lead_elsewhere(tmp_path, bad):
    for study, variant in ((bad, "ok"), ("ok", bad)):
        with pytest.raises(ValueError, match="cannot name a folder") as error:
            run_folder(tmp_path, study, variant, 0, "0123456789")
        assert repr(bad) in str(error.value) and "\n" not in str(error.value)
