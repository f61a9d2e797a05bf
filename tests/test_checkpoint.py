"""Published checkpoints come in as they are meant, our runs go out, and nothing in a file is executed."""

import pickle
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from golden import OUTPUT_TOLERANCE, error, facts, fill_, images, tensors
from safetensors.torch import load_file, save_file

from src import checkpoint, training
from src.complexity import on_meta
from src.config import CONF, build_model, load_config
from src.models import upstream, weights
from src.models.weights import WeightsError, describe, fill, pin
from src.runs.identity import identity
from src.runs.record import find_records
from src.weight_files import export_run, import_published

MODELS = {
    f"{release}.model.dat_{size}": f"{ours}_{size}"
    for release, ours in (("v1", "dat"), ("v2", "datpp"))
    for size in ("tiny", "small", "base", "base_384")
}
TINY = (
    "recipe.epochs=1",
    "recipe.warmup_epochs=0",
    "recipe.batch_size=4",
    "data.scenes_per_epoch=8",  # two steps
    "data.val_scenes=6",
    "data.test_scenes=6",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "progress=lines",
    "logger=csv",
)
HEAD = ("head.weight", "head.bias")


def names_only(golden):
    """All published names and shapes in a small file: each tensor is one number, repeated."""
    shapes = facts(f"{golden}.keys")["state_dict"]
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def without_classifier(state):
    """As detectors have it: no norm and head for classes, but a norm behind each stage."""
    backbone = {name: tensor for name, tensor in state.items() if not name.startswith("cls_")}
    return backbone | {f"norms.{i}.norm.{kind}": torch.zeros(4) for i in range(4) for kind in ("weight", "bias")}


def saved(content, path):
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """DAT-T of either release as its authors save it, with weights made of their names."""
    folder, files = tmp_path_factory.mktemp("published"), {}
    for release in ("v1", "v2"):
        state = {
            name: torch.zeros(shape) for name, shape in facts(f"{release}.model.dat_tiny.keys")["state_dict"].items()
        }
        fill_(state)
        files[release] = saved({"model": state, "optimizer": {}, "epoch": 299}, folder / f"tiny_{release}.pth")
    return files


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("imported"), {}
    for release, model in (("v1", "dat_tiny"), ("v2", "datpp_tiny")):
        files[release] = folder / f"{model}.safetensors"
        import_published(published[release], model=model, out=files[release])
    return files


def command(capsys, *arguments):
    """(exit code, stdout, stderr) of python -m src.checkpoint."""
    return checkpoint.main([*map(str, arguments)]), *capsys.readouterr()


# ------------------------------------------------------------------------------------------- import


@pytest.mark.parametrize(("release", "model"), [("v1", "dat_tiny"), ("v2", "datpp_tiny")])
def test_imported_weights_give_the_published_logits(release, model, imported):
    golden, metadata = tensors(f"{release}.model.dat_tiny")
    net = build_model(load_config(f"model={model}", "model.num_classes=1000", f"model.weights={imported[release]}"))
    with torch.no_grad():
        assert error(net.eval()(images(metadata["input"])), golden["output"]) < OUTPUT_TOLERANCE
    about = describe(imported[release])
    assert (about["release"], about["model"]["name"], about["source"]) == (release, model, f"tiny_{release}.pth")
    assert (about["resized"], about["reinitialised"], about["left_out"]) == ([], [], ["optimizer", "epoch"])
    assert about["source_sha256"] and about["datlab"] and "weights" not in about["model"]


@pytest.mark.parametrize(("golden", "model"), MODELS.items())
def test_names_and_shapes_of_every_published_model_fit_ours(golden, model, tmp_path):
    found = upstream.read_published(saved({"model": names_only(golden)}, tmp_path / "it.pth"))
    assert found.release == golden[:2] and found.num_classes == 1000
    cfg = load_config(f"model={model}", "model.num_classes=1000")
    net = on_meta(lambda: build_model(cfg))
    shapes = {name: tensor.to("meta") for name, tensor in found.tensors.items()}
    converted, report = upstream.from_published(net, shapes)
    assert converted.keys() == net.state_dict().keys()
    assert report == weights.LoadReport()


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "model.backbone."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("golden", ["v1.model.dat_tiny", "v2.model.dat_tiny"])
def test_a_backbone_is_found_in_whatever_wraps_it(golden, wrapper, prefix, tmp_path):
    state = names_only(golden)
    around = prefix.removesuffix("backbone.")
    inside = {f"{prefix}{name}": tensor for name, tensor in without_classifier(state).items()}
    parts = ("neck.convs.0.weight", "neck.convs.0.bias", "roi_head.fc.weight") if "backbone" in prefix else ()
    inside |= {f"{around}{name}": torch.zeros(2) for name in parts}
    content = {wrapper: inside, "meta": {"epoch": 36}} if wrapper else inside
    found = upstream.read_published(saved(content, tmp_path / "it.pth"))
    assert found.tensors.keys() == {name for name in state if not name.startswith("cls_")}
    assert (found.release, found.prefix, found.num_classes) == (golden[:2], prefix, None)
    expected = ("neck.* (2 tensors)", "roi_head.* (1 tensors)") if parts else ()
    assert found.left_out == (*expected, "norms.* (8 tensors)", *(["meta"] if wrapper else []))


def test_the_backbone_of_a_detector_becomes_weights_without_a_head(published, tmp_path, capsys):
    state = torch.load(published["v2"], weights_only=True, mmap=True)["model"]
    detector = {f"backbone.{name}": tensor for name, tensor in without_classifier(state).items()}
    path = saved({"state_dict": detector | {"bbox_head.fc.weight": torch.zeros(3)}}, tmp_path / "detector.pth")
    out = tmp_path / "out.safetensors"
    code, said, _ = command(capsys, "import", path, "--model", "datpp_tiny", "-o", out)
    assert code == 0
    assert "re-initialised  norm.weight, norm.bias, head.weight, head.bias" in said
    assert "left out        bbox_head.* (1 tensors), norms.* (8 tensors)" in said
    assert said.splitlines()[-1].startswith(f"next            python -m src.train model=datpp_tiny model.weights={out}")
    assert "head.weight" not in load_file(out)

    cfg = load_config("model=datpp_tiny", "model.num_classes=5", f"model.weights={out}")
    report = fill(on_meta(lambda: build_model(cfg)), cfg["model"])
    assert set(report.reinitialised) == {"norm.weight", "norm.bias", *HEAD}


def test_the_command_says_what_it_did_and_what_comes_next(published, imported, tmp_path, capsys):
    out = tmp_path / "ten.safetensors"
    arguments = ("import", published["v1"], "--model", "dat_tiny", "--classes", "10", "-o", out)
    code, said, _ = command(capsys, *arguments)
    assert code == 0 and "re-initialised  head.weight, head.bias" in said
    assert f"next            python -m src.train model=dat_tiny model.weights={out}" in said
    assert describe(out)["model"]["num_classes"] == 10 and not set(HEAD) & load_file(out).keys()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]

    code, shown, _ = command(capsys, "show", out)
    assert code == 0 and shown.splitlines() == said.splitlines()[: len(shown.splitlines())]
    _, said, _ = command(capsys, "show", imported["v1"])
    assert "dat_tiny, 224 pixels, 1000 classes" in said and "DAT (CVPR 2022)" in said


def test_tables_are_resized_at_import_or_at_loading_alike(published, imported, tmp_path):
    out = tmp_path / "at384.safetensors"
    about = import_published(published["v1"], model="dat_tiny", image_size=384, out=out)
    tables = [name for name in facts("v1.model.dat_tiny.keys")["state_dict"] if name.endswith("rpe_table")]
    assert about["resized"] == tables and len(tables) == 4  # windows stay
    cfg = load_config(
        "model=dat_tiny", "model.image_size=384", f"model.weights={imported['v1']}", "model.num_classes=1000"
    )
    net, at_384 = build_model(cfg), load_file(out)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, at_384[name]), name
    assert at_384["stages.three.blocks.1.attention.position_bias.bias_table"].shape == (12, 47, 47)


def test_windows_of_another_size_are_resized_too():
    cfg = load_config("model=dat_base_384", "model.num_classes=1000")
    shapes = {name: tensor.to("meta") for name, tensor in names_only("v1.model.dat_base").items()}
    _, report = upstream.from_published(on_meta(lambda: build_model(cfg)), shapes)
    kinds = [name.rpartition(".")[2] for name in report.resized]
    assert (kinds.count("relative_position_bias_table"), kinds.count("rpe_table")) == (14, 10)


def test_another_model_is_refused_by_naming_the_one_that_fits(tmp_path, capsys):
    path = saved({"model": names_only("v1.model.dat_small")}, tmp_path / "small.pth")
    code, out, err = command(capsys, "import", path, "--model", "dat_tiny", "-o", tmp_path / "out")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(r"doesn't fit dat_tiny: .* names that this module lacks: stages\.2\.attns\.10.* and \d+ more", err)
    assert err.endswith("it fits --model dat_small\n")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------- files that can't be trusted


class CallsSystem:
    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def foreign_class(monkeypatch, package):
    """A mapping of `package`, importable while the patch lasts."""
    module = types.ModuleType(f"{package}.config")
    module.CfgNode = type("CfgNode", (dict,), {"__module__": f"{package}.config"})
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, f"{package}.config", module)
    return module.CfgNode


def with_config(package, folder, monkeypatch, *, zipped=True):
    """A checkpoint with a configuration object inside, as the published code saves it; its module is gone again."""
    with monkeypatch.context() as patch:
        config = foreign_class(patch, package)(MODEL={})
        config.__dict__["__immutable__"] = True  # as yacs has it
        path = folder / f"{package}.pth"
        content = {"model": names_only("v1.model.dat_tiny"), "config": config}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_the_published_configuration_inside_is_read_as_a_mapping(zipped, tmp_path, monkeypatch):
    """Without yacs, and without executing anything."""
    path = with_config("yacs", tmp_path, monkeypatch, zipped=zipped)
    assert "yacs" not in sys.modules
    published = upstream.read_published(path)
    assert published.release == "v1" and published.left_out == ("config",)
    with pytest.raises(pickle.UnpicklingError):  # nobody else is let to
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_wants_a_class_is_refused_with_the_way_to_convert_it(zipped, tmp_path, monkeypatch):
    path = with_config("strange", tmp_path, monkeypatch, zipped=zipped)
    with pytest.raises(WeightsError, match=r"needs the class strange\.config\.CfgNode") as refused:
        upstream.read_published(path)
    assert "\n" not in str(refused.value)
    # The command that it names does what it says, where the class is.
    code = re.search(r'python -c "(.*)" and import (.*)$', str(refused.value))
    foreign_class(monkeypatch, "strange")
    exec(code[1], {})
    assert upstream.read_published(Path(code[2])).release == "v1"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_not_loaded(zipped, tmp_path):
    trap = CallsSystem()
    trap.path = tmp_path / "ran"
    path = tmp_path / "trap.pth"
    torch.save({"model": {}, "config": trap}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"would call (posix|nt)\.system"):
        upstream.read_published(path)
    assert not trap.path.exists()


def test_damaged_and_foreign_files_are_refused_in_a_line_each(tmp_path):
    whole = saved({"model": names_only("v1.model.dat_tiny")}, tmp_path / "whole.pth").read_bytes()
    old = tmp_path / "old.pth"
    torch.save({"model": names_only("v1.model.dat_tiny")}, old, _use_new_zipfile_serialization=False)
    assert upstream.read_published(old).release == "v1"
    save_file({"patch_proj.0.weight": torch.zeros(4)}, tmp_path / "it.safetensors")
    cases = {
        "cut.pth": (whole[: len(whole) // 2], "damaged or was cut short"),
        "old_cut.pth": (old.read_bytes()[: old.stat().st_size // 2], "damaged or was cut short"),
        "cut.safetensors": ((tmp_path / "it.safetensors").read_bytes()[:-2], "damaged or was cut short"),
        "page.pth": (b"<!DOCTYPE html><html>", "is no checkpoint of torch and no safetensors file; it begins with"),
        "empty.pth": (b"", "is empty"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=says) as refused:
            upstream.read_published(tmp_path / name)
        assert "\n" not in str(refused.value)
    others = {
        tmp_path: "is a folder",
        tmp_path / "nowhere.pth": "isn't there",
        saved([torch.zeros(1)], tmp_path / "list.pth"): "holds a list",
        saved({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth"): r"no single DAT .*conv1\.weight",
    }
    for path, says in others.items():
        with pytest.raises(WeightsError, match=says):
            upstream.read_published(path)


def test_what_lies_where_the_file_should_go_is_not_lost(published, tmp_path, monkeypatch):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(WeightsError, match="choose another with -o"):
        weights.write(notes, {}, {})
    assert notes.read_text() == "mine"
    with pytest.raises(WeightsError, match="can't be written: No such file"):
        weights.write(tmp_path / "nowhere" / "it.safetensors", {}, {})

    ours = tmp_path / "ours.safetensors"
    weights.write(ours, {"a": torch.zeros(1)}, {"number": 1})
    assert ours.stat().st_mode == notes.stat().st_mode

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(WeightsError, match="No space left"):
        weights.write(ours, {"a": torch.ones(1)}, {"number": 2})
    assert describe(ours) == {"number": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "ours.safetensors"}


# ------------------------------------------------------------------------------------ model.weights=


def tiny(folder, *overrides):
    return load_config(*TINY, f"runs={folder}", *overrides)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run of two steps, and its weights."""
    folder = tmp_path_factory.mktemp("exported")
    training.train(tiny(folder))
    (record,) = find_records(folder)
    path = folder / "best.safetensors"
    export_run(Path(record["folder"]), out=path)
    return record, path


def test_every_model_takes_weights():
    for path in (CONF / "model").glob("*.yaml"):
        assert load_config(f"model={path.stem}")["model"]["weights"] is None


def test_a_run_goes_out_whole(exported, capsys):
    record, path = exported
    saved_net = torch.load(Path(record["folder"], "checkpoints", "best.ckpt"), weights_only=True)["state_dict"]
    ours = load_file(path)
    assert {f"net.{name}" for name in ours} == {name for name in saved_net if name.startswith("net.")}
    assert all(torch.equal(tensor, saved_net[f"net.{name}"]) for name, tensor in ours.items())
    about = describe(path)
    assert about["run"]["identity"] == record["identity"] and about["release"] == "datlab"
    _, said, _ = command(capsys, "export", record["folder"], "-o", path)
    assert (
        f"next            python -m src.evaluate experiment=baseline model=micro model.weights={path} data=digits"
        in said
    )


def test_export_refuses_what_is_no_run_in_a_line(exported, tmp_path):
    with pytest.raises(WeightsError, match="has no record of a run"):
        export_run(tmp_path, out=tmp_path / "it")
    (tmp_path / "record.json").write_text(Path(exported[0]["folder"], "record.json").read_text())
    with pytest.raises(WeightsError, match=r"best\.ckpt isn't there"):
        export_run(tmp_path, out=tmp_path / "it")


def test_averaged_weights_are_those_that_go_out(tmp_path):
    training.train(tiny(tmp_path, "recipe.ema_decay=0.5"))
    (record,) = find_records(tmp_path)
    export_run(Path(record["folder"]), out=tmp_path / "it.safetensors")
    saved_run = torch.load(Path(record["folder"], "checkpoints", "best.ckpt"), weights_only=True)
    ours, name = load_file(tmp_path / "it.safetensors"), "head.weight"
    assert torch.equal(ours[name], saved_run["state_dict"][f"net.{name}"])
    assert not torch.equal(ours[name], saved_run["current_model_state"][f"net.{name}"])
    assert describe(tmp_path / "it.safetensors")["run"]["averaged"]


def test_a_run_from_weights_says_so_in_its_record_and_log(exported, tmp_path):
    _, path = exported
    cfg = tiny(tmp_path, f"model.weights={path}", "model.num_classes=11", "model.image_size=96", "data.num_classes=10")
    cfg["model"]["num_classes"] = 10
    training.train(cfg)
    (record,) = find_records(tmp_path)
    used = record["weights"]
    assert {key: used[key] for key in ("path", "sha256")} == pin(path) == record["config"]["model"]["weights"]
    assert used["of"]["run"]["identity"] == exported[0]["identity"]
    assert used["reinitialised"] == [] and used["other_parts"] == []
    assert used["resized"] and all("position_bias.bias_table" in name for name in used["resized"])
    log = Path(record["folder"], "log.txt").read_text()
    assert f"weights of {path}: resized {len(used['resized'])} bias tables" in log
    assert training.train(tiny(tmp_path, "seed=1"))["test/acc1"] >= 0  # none given, none recorded
    assert [found["weights"] for found in find_records(tmp_path)][1] is None


def test_a_head_of_other_classes_is_drawn_by_the_seed(exported):
    _, path = exported
    torch.manual_seed(0)
    drawn = build_model(load_config("model.num_classes=7"))
    torch.manual_seed(0)
    cfg = load_config("model.num_classes=7", f"model.weights={path}")
    net, given = build_model(cfg).state_dict(), load_file(path)
    for name, tensor in net.items():
        assert torch.equal(tensor, drawn.state_dict()[name] if name in HEAD else given[name]), name
    assert fill(on_meta(lambda: build_model(cfg)), cfg["model"]).reinitialised == HEAD
    without = load_config("model.num_classes=0", f"model.weights={path}")
    assert fill(on_meta(lambda: build_model(without)), without["model"]).left_out == tuple(sorted(HEAD))


def test_the_identity_is_that_of_the_content(exported, tmp_path):
    _, path = exported
    moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    moved.write_bytes(path.read_bytes())
    changed = load_file(path)
    changed["head.bias"] += 1
    weights.write(other, changed, describe(path))
    here, there, different = (identity(load_config(f"model.weights={file}")) for file in (path, moved, other))
    assert here == there != different
    assert here != identity(load_config())


def test_weights_that_do_not_fit_are_refused_before_any_work(exported, published, tmp_path):
    _, path = exported
    plain = tmp_path / "plain.safetensors"
    save_file({"head.bias": torch.zeros(3)}, plain)
    cases = (
        ([f"model.weights={path}", "model=dat_tiny"], r"holds micro, which doesn't fit dat_tiny \(.*model=micro would"),
        ([f"model.weights={path}", "offset=zero"], "it has .*offset.*use the variant"),
        ([f"model.weights={published['v1']}"], "python -m src.checkpoint import makes one"),
        ([f"model.weights={plain}"], "isn't written by us"),
    )
    for overrides, says in cases:
        cfg = tiny(tmp_path, *overrides)
        with pytest.raises(WeightsError, match=says) as refused:
            training.check(cfg)
        assert "\n" not in str(refused.value)
    for name, says in (("nowhere", "isn't there"), (".", "is a folder")):
        with pytest.raises(WeightsError, match=f"model.weights: .*{says}"):
            tiny(tmp_path, f"model.weights={tmp_path / name}")


def test_weights_that_change_under_a_command_are_refused(exported, tmp_path):
    _, path = exported
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    cfg = load_config(f"model.weights={copy}")
    weights.write(copy, load_file(path), describe(path) | {"more": 1})
    with pytest.raises(WeightsError, match="has changed"):
        build_model(cfg)


def test_other_parts_of_the_same_shapes_are_named(exported, caplog):
    _, path = exported
    cfg = load_config(f"model.weights={path}", "offset_range=unbounded")
    report = fill(on_meta(lambda: build_model(cfg)), cfg["model"])
    assert report.other_parts == ("model.attention.deformable.offset_range._target_",)
    with caplog.at_level("INFO"):
        build_model(cfg)
    assert "not as when the weights were made: model.attention.deformable.offset_range" in caplog.text
