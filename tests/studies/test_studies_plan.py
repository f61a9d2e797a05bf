"""What is said before a study runs, and while it does: plans, slots, states, views; without running anything."""

import json
import threading
import time

import pytest
from study_tools import TINY, write_study

from src import study as command
from src import training
from src.config import load_config
from src.runs.durations import duration, seconds
from src.runs.record import read_record, write_json
from src.runs.session import claim
from src.studies import plan as planning
from src.studies import states as state_module
from src.studies.archive import pack, unpack
from src.studies.clean import leftovers
from src.studies.definition import StudyError, read_study
from src.studies.engines.base import STARTED
from src.studies.engines.choose import choose_engine
from src.studies.engines.local import Local, usable_cores
from src.studies.freeze import freeze
from src.studies.plan import estimate, refuse_what_does_not_fit, said
from src.studies.runner import to_do
from src.studies.states import states
from src.studies.summary import summary
from src.studies.view import console, lines, live

ROWS = {"baseline": None, "ablate_no_offset": None, "ablate_no_bias": None}


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "s", ROWS, seeds=2)


@pytest.fixture
def table(study, tmp_path):
    return freeze(read_study(str(study)), [f"runs={tmp_path / 'runs'}"])


def finish(table, job, *, accuracy=0.5, took=100.0, under=None):
    """A finished run as if it had been computed."""
    cfg = table.config(job) | ({"study": under} if under else {})
    with claim(cfg, root=table.runs) as run:
        run.finish({"test/acc1": accuracy, "val/acc1": accuracy, "peak_memory_mb": 500.0})
    record = json.loads((run.folder / "record.json").read_text())
    record = {key: value for key, value in record.items() if key != "checksum"} | {"wall_seconds": took}
    write_json(run.folder / "record.json", record)
    return run.folder


def break_off(table, job, error):
    with pytest.raises(type(error)), claim(table.config(job), root=table.runs) as run:
        raise error
    return run.folder


def by_name(table):
    return {str(state.job): state.status for state in states(table)}


# -------------------------------------------------------------------------------------------- states


def test_what_has_become_of_each_job(table):
    jobs = {str(job): job for job in table.jobs}
    finish(table, jobs["baseline/seed0"])
    finish(table, jobs["baseline/seed1"], under="another_study")  # the same experiment, wherever it lies
    break_off(table, jobs["ablate_no_offset/seed0"], RuntimeError("broken"))
    break_off(table, jobs["ablate_no_offset/seed1"], KeyboardInterrupt())
    with claim(table.config(jobs["ablate_no_bias/seed0"]), root=table.runs) as run:
        write_json(run.folder / "progress.json", {"phase": "fit", "epoch": 2, "epochs": 4, "step": 3, "steps": 8})
        assert by_name(table) == {
            "baseline/seed0": "finished",
            "baseline/seed1": "finished",
            "ablate_no_offset/seed0": "failed",
            "ablate_no_offset/seed1": "interrupted",
            "ablate_no_bias/seed0": "running",
            "ablate_no_bias/seed1": "waiting",
        }
        assert [state.progress["epoch"] for state in states(table) if state.progress] == [2]
        run.finish({})
    assert [str(job) for job in to_do(table)] == [
        "ablate_no_offset/seed0",
        "ablate_no_offset/seed1",
        "ablate_no_bias/seed1",
    ]


def test_a_run_of_the_plain_command_counts(tmp_path):
    study = write_study(tmp_path / "tiny", {"ablate_no_offset": None}, seeds=2)
    table = freeze(read_study(str(study)), [*TINY, f"runs={tmp_path / 'runs'}"])
    training.train(load_config("experiment=ablate_no_offset", "seed=1", *TINY, f"runs={tmp_path / 'runs'}"))
    assert by_name(table) == {"ablate_no_offset/seed0": "waiting", "ablate_no_offset/seed1": "finished"}


def test_an_unfinished_run_elsewhere_is_not_gone_on_with(table):
    job = table.jobs[0]
    with pytest.raises(RuntimeError), claim(table.config(job) | {"study": "other"}, root=table.runs):
        raise RuntimeError
    assert by_name(table)[str(job)] == "waiting"


def test_the_view_is_legible_and_says_what_is_wrong(table):
    jobs = {str(job): job for job in table.jobs}
    finish(table, jobs["baseline/seed0"], accuracy=0.8)
    finish(table, jobs["baseline/seed1"], accuracy=0.84)
    break_off(table, jobs["ablate_no_offset/seed0"], RuntimeError("the [bold]disk[/bold] is gone\nand more"))
    found = summary(table, states(table))
    text = "\n".join(lines(found))
    assert "82.0 ± 2.8" in text and "RuntimeError: the [bold]disk[/bold] is gone" in text and "and more" not in text
    assert "3 waiting, 1 failed, 2 finished" in text
    screen = console()
    with screen.capture() as capture:
        screen.print(live(found))
    shown = capture.get()
    assert "82.0 ± 2.8" in shown and "[bold]disk[/bold]" in shown
    assert json.loads(json.dumps(found))["counts"] == {"waiting": 3, "failed": 1, "finished": 2}


def test_a_look_reads_no_finished_run_again(table, monkeypatch):
    """Or each job of a large study would cost the more the more are done."""
    finish(table, table.jobs[0])
    first, read = states(table), []
    monkeypatch.setattr(state_module, "read_record", lambda folder: read.append(folder) or read_record(folder))
    own = finish(table, table.jobs[1])
    second = states(table, first)
    assert [state.status for state in second] == ["finished", "finished", *["waiting"] * 4] and read == [own]
    assert second == states(table)


def test_time_left_counts_what_runs_and_what_waits(table):
    for job in table.jobs[:3]:
        finish(table, job, took=100.0)
    with claim(table.config(table.jobs[3]), root=table.runs) as run:
        write_json(
            run.folder / "progress.json",
            {"phase": "fit", "epoch": 2, "epochs": 4, "seconds_left": 40.0, "metrics": {"val/acc1": 0.3}},
        )
        assert summary(table, states(table))["seconds_left"] == pytest.approx(40 + 2 * 100)
        run.finish({})


# -------------------------------------------------------------------------------------------- engines


def slots(jobs=8, **options):
    given = {"workers": "auto", "threads": "auto", "gpus": [], "jobs_per_gpu": 1}
    engine = Local(**{**given, **options}, retries=0, silence=1, time_limit=None)
    return engine


def of_devices(table, devices, accelerator="auto"):
    for variant in table.variants.values():
        variant.config["trainer"] |= {"devices": devices, "accelerator": accelerator}
    return table


def test_jobs_share_the_cores_out(table):
    cores = usable_cores()
    found = slots().slots(of_devices(table, 1), 100)
    assert len(found) == cores and {slot["OMP_NUM_THREADS"] for slot in found} == {"1"}
    assert slots(workers=1).slots(table, 100)[0]["OMP_NUM_THREADS"] == str(cores)
    assert len(slots().slots(table, 1)) == 1, "no more workers than jobs"


def test_jobs_share_the_gpus_out(table):
    def visible(devices, **options):
        engine = slots(gpus=[0, 1, 2, 3], **options)
        return [slot["CUDA_VISIBLE_DEVICES"] for slot in engine.slots(of_devices(table, devices), 8)]

    assert visible(1) == ["0", "1", "2", "3"]
    assert visible(1, jobs_per_gpu=2) == ["0", "1", "2", "3"] * 2
    assert visible(1, workers=3) == ["0", "1", "2"]
    assert visible(2) == ["0,1", "2,3"]
    with pytest.raises(ValueError, match="a job wants 8 GPUs, and there are 4"):
        visible(8)
    engine = slots(gpus=[0, 1])
    assert "CUDA_VISIBLE_DEVICES" not in engine.slots(of_devices(table, 1, "cpu"), 8)[0]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["engine.workers=0"], "engine.workers is 0"),
        (["engine.threads=none"], "engine.threads is 'none'"),
        (["engine.jobs_per_gpu=0"], "engine.jobs_per_gpu is 0"),
        (["engine.retries=-1"], "engine.retries is -1"),
        (["engine.silence=0"], "engine.silence is 0"),
        (["engine.time_limit=-3"], "engine.time_limit is -3"),
        (["engine=pbs"], "Could not find 'engine/pbs'"),
        (["engine.wrokers=3"], "engine.wrokers"),
        (["engine=slurm", "engine.warning=99999"], "engine.warning is 99999"),
        (["engine=ray", "engine.cpus=0"], "engine.cpus is 0"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_in_one_line(overrides, says):
    with pytest.raises(ValueError, match=says) as caught:
        choose_engine(overrides)
    assert "\n" not in str(caught.value)


def test_nobody_would_run_detached_jobs_here():
    with pytest.raises(ValueError, match="engine=slurm"):
        choose_engine([]).detach()


def test_a_job_that_somebody_else_computes_is_waited_for(table, monkeypatch):
    """And counts once it is finished there."""
    monkeypatch.setattr("src.studies.engines.local.LOOK_AGAIN", 0.2)
    (job, *_), said = table.jobs, []
    engine = slots(workers=1)
    with claim(table.config(job), root=table.runs) as run:
        worker = threading.Thread(
            target=engine.run, args=(table, [job], lambda *event: said.append(event), threading.Event())
        )
        worker.start()
        time.sleep(1)
        assert worker.is_alive() and said == []
        run.finish({"test/acc1": 0.5})
    worker.join(timeout=10)
    assert not worker.is_alive() and said == [(job, "finished")] and STARTED not in said


# --------------------------------------------------------------------------------------------- plan


PROBE = {
    "step": [0.1, 0.12, 0.08, 0.1],
    "evaluation": [0.05, 0.05],
    "steps": 1000,
    "evaluations": 100,
    "save": 0.1,
    "saves": 20,
    "memory_mb": 1000.0,
    "checkpoint_mb": 10.0,
    "startup": 10.0,
}


@pytest.fixture
def probes(monkeypatch):
    """Probes that take no time; the names that were asked for."""
    asked = []

    def probe(table, path, name, slot, side_by_side):
        asked.append(name)
        return PROBE

    monkeypatch.setattr(planning, "_probe", probe)
    return asked


def test_a_plan_adds_up(table, probes):
    engine = slots(workers=2, threads=1)
    found = estimate(table, engine, probe=True)
    assert sorted(probes) == sorted(ROWS)
    one = 1000 * 0.1 + 100 * 0.05 + 20 * 0.1 + 10
    assert found["costs"]["baseline"]["seconds"] == pytest.approx(one)
    assert 0.15 < found["costs"]["baseline"]["unsure"] < 0.3
    assert found["wall_seconds"] == pytest.approx(3 * one), "six jobs, two at a time"
    assert found["device_hours"] == pytest.approx(6 * one / 3600)
    assert found["disk_mb"] == pytest.approx(6 * (3 * 10 + 3)) and found["memory_mb"] == 1000
    assert "2 paired seeds can't reach p < 0.05" in found["seeds"]
    text = said(found)
    assert duration(3 * one) in text and text.count("to do") == 6 + 1
    for job in table.jobs:
        assert job.identity in text


def test_finished_runs_are_better_than_probes(table, probes):
    """On this machine with as many threads, unbroken."""
    import torch

    engine = slots(workers=1, threads=torch.get_num_threads())
    finish(table, table.jobs[0], took=300.0)
    found = estimate(table, engine, probe=True)
    assert "baseline" not in probes and found["costs"]["baseline"]["seconds"] == 300
    assert found["to_do"] == 5
    other = slots(workers=1, threads=torch.get_num_threads() + 1)
    assert "probe" in estimate(table, other, probe=True)["costs"]["baseline"]["from"]


def test_without_probes_nothing_is_made_up(table):
    found = estimate(table, slots(), probe=False)
    assert found["wall_seconds"] is None and "isn't known" in said(found)
    with pytest.raises(StudyError, match="leave out --no-probe"):
        refuse_what_does_not_fit(found, 10.0)


def test_a_budget_is_kept(table, probes):
    found = estimate(table, slots(workers=2), probe=True)
    refuse_what_does_not_fit(found, 3600)
    with pytest.raises(
        StudyError, match=r"takes 5 min 51 s with 2 worker\(s\), the budget is 3 min 00 s; seeds=1"
    ) as caught:
        refuse_what_does_not_fit(found, 180)
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match="GB of disk"):
        refuse_what_does_not_fit({**found, "disk_free_mb": 1.0}, None)
    with pytest.raises(StudyError, match=r"needs 1\.0 GB of memory a job, there are 0\.5 GB for each"):
        refuse_what_does_not_fit({**found, "memory_of_a_job_mb": 500.0}, None)


def test_the_spread_of_seeds_becomes_points(table, probes):
    for job in table.jobs:
        finish(table, job, accuracy=0.8 + 0.01 * job.seed * (job.name == "baseline"))
    found = estimate(table, slots(), probe=True)
    assert "(sd 0.71 of 4 pairs)" in found["seeds"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90),
        ("90s", 90),
        ("15min", 900),
        ("15 min", 900),
        ("2h", 7200),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
    ],
)
def test_times_as_they_are_written(text, value):
    assert seconds(text) == value
    assert seconds(duration(value)) == value


@pytest.mark.parametrize("text", ["", "h", "two hours", "3x", "-5s"])
def test_times_that_are_none(text):
    with pytest.raises(ValueError, match="is no time"):
        seconds(text)


# ----------------------------------------------------------------------------------- the command line


def test_commands_that_only_read(table, study, tmp_path, capsys):
    table.write()
    folder = break_off(table, table.jobs[0], RuntimeError("broken"))
    (folder / "log.txt").write_text("".join(f"line {i}\n" for i in range(100)))
    finish(table, table.jobs[1])
    runs = f"runs={table.runs}"

    def said(*arguments, code=0):
        assert command.main([arguments[0], str(study), runs, *arguments[1:]]) == code
        return capsys.readouterr()

    assert json.loads(said("status", "--json").out)["counts"] == {"waiting": 4, "failed": 1, "finished": 1}
    assert "1 failed" in said("status").out
    out = said("logs", "--lines=3").out
    assert "RuntimeError: broken" in out and "line 99" in out and "line 96" not in out
    assert "=== ablate_no_offset/seed0: finished" in said("logs", "--job=ablate_no_offset/seed0").out
    assert "no job 'nonsense'" in said("logs", "--job=nonsense", code=2).err
    archive = tmp_path / "half.tar.gz"
    assert "1 of 6 runs" in said("pack", "-o", str(archive)).out
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert command.main(["unpack", str(archive), "--runs", str(elsewhere)]) == 0
    assert "1 runs added" in capsys.readouterr().out
    assert command.main(["status", str(study), "runs=/nowhere"]) == 2
    assert "has not been run" in capsys.readouterr().err
    assert "it was with" in said("status", "data=cifar10", code=2).err


def test_what_was_unpacked_is_done(table, tmp_path):
    there = freeze(read_study(str(tmp_path / "s")), [f"runs={tmp_path / 'there'}"])
    folders = [finish(there, job) for job in there.jobs[:3]]
    pack(folders, there.runs, tmp_path / "a.tar.gz")
    table.runs.mkdir()
    unpack(tmp_path / "a.tar.gz", table.runs)
    assert to_do(table) == list(table.jobs[3:])


def test_clean_lists_what_no_longer_matches_and_nothing_else(table, study):
    kept = finish(table, table.jobs[0])
    table.write()
    other = freeze(read_study(str(write_study(study, {"old": ["recipe.weight_decay=0.3"]}))), [f"runs={table.runs}"])
    stale = finish(other, other.jobs[0])
    other.write()
    write_study(study, ROWS, seeds=2)
    found = leftovers(read_study(str(study)), table.runs)
    assert [leftover.path for leftover in found] == [stale, other.path]
    assert command.main(["clean", str(study), f"runs={table.runs}"]) == 0
    assert stale.exists()
    assert command.main(["clean", str(study), f"runs={table.runs}", "--delete"]) == 0
    assert not stale.exists() and not other.path.exists() and kept.exists() and table.path.exists()


def test_clean_leaves_a_running_job_alone(table, study):
    other = freeze(read_study(str(write_study(study, {"old": ["recipe.weight_decay=0.3"]}))), [f"runs={table.runs}"])
    with claim(other.config(other.jobs[0]), root=table.runs) as run:
        write_study(study, ROWS, seeds=2)
        assert leftovers(read_study(str(study)), table.runs) == []
        run.finish({})


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    out = capsys.readouterr().out
    for name in ("plan", "run", "status", "logs", "retry", "clean", "pack", "unpack"):
        assert f"\n    {name} " in out


def test_clean_leaves_what_another_study_counts_as_its_own(table, study, tmp_path):
    rows = {"old": ["recipe.weight_decay=0.3"]}
    here = freeze(read_study(str(write_study(study, rows))), [f"runs={table.runs}"])
    there = freeze(read_study(str(write_study(tmp_path / "t", rows))), [f"runs={table.runs}"])
    shared = finish(here, here.jobs[0])
    there.write()
    write_study(study, ROWS, seeds=2)
    assert shared not in [leftover.path for leftover in leftovers(read_study(str(study)), table.runs)]
    there.path.unlink()
    assert shared in [leftover.path for leftover in leftovers(read_study(str(study)), table.runs)]


def test_a_job_takes_the_start_of_its_process_too(table):
    folder = finish(table, table.jobs[0], took=100.0)
    record = json.loads((folder / "record.json").read_text())
    write_json(folder / "record.json", record | {"startup_seconds": 9.0})
    (state,) = [state for state in states(table) if state.status == "finished"]
    assert state.seconds == 109 and summary(table, states(table))["variants"][0]["seconds"] == 109
