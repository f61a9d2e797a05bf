"""What the benchmarks of start-up and of studies count and say; nothing here depends on how fast it runs."""

import csv

import pytest
from torch.nn import functional as F

from src import study as command
from src.benchmarks import startup, study
from src.benchmarks.bars import bars
from src.benchmarks.options import Options
from src.benchmarks.phases import REST, Phases
from src.studies.states import states


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


def test_a_phase_stops_while_another_one_runs_within_it():
    clock = Clock()
    phases = Phases(clock)

    class Owner:
        def outer(self):
            clock.work(1)
            self.inner(4)
            clock.work(2)

        def inner(self, seconds):
            clock.work(seconds)
            if seconds == 8:
                raise RuntimeError

    phases.watch(Owner, "outer", "outer")
    phases.watch(Owner, "inner", lambda owner, seconds: f"inner of {seconds}")
    Owner().outer()
    clock.work(16)
    with pytest.raises(RuntimeError):
        Owner().inner(8)
    assert phases.seconds == {REST: 16, "outer": 3, "inner of 4": 4, "inner of 8": 8}


SAME = ("logger.mode=disabled", "model.drop_path_rate=0", "linear_backend=convolution")


def test_a_bare_loop_takes_the_steps_of_a_run(tmp_path, monkeypatch):
    """Or its time would say nothing. MKL's products differ in the last bit with the addresses of what they read."""
    losses, entropy = [], F.cross_entropy

    def watched(logits, labels, **options):
        loss = entropy(logits, labels, **options)
        if logits.requires_grad:
            losses.append(loss.item())
        return loss

    monkeypatch.setattr(F, "cross_entropy", watched)
    for version in (startup.bare_steps, startup.run_steps):
        version(3, str(tmp_path), "recipe.batch_size=4", *SAME)
    steps = 3 + startup.WARM_UP
    assert len(losses) == 2 * steps and losses[:steps] == pytest.approx(losses[steps:], rel=1e-5)


def rows(tmp_path, measure, module):
    options = Options(output=tmp_path, rounds=2)
    table = module.Table(tmp_path / "results.csv", options)
    measure(table)
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(table.rows)
    return table.rows


def test_the_page_of_start_up_has_every_part(tmp_path):
    def measure(table):
        startup._seconds(table, "imports", {"torch": [2.0, 4.0], "timm": [1.0, 1.0]})
        startup._seconds(table, "run", {"imports": [6.0], "other steps": [18.0]}, settings="recipe.epochs=2")

    found = rows(tmp_path, measure, startup)
    page = startup.page(found)
    assert "| torch | 3.00 | 2.50 to 3.50 | 75 % |" in page and "with recipe.epochs=2" in page
    assert "| other steps | 18.00 | 18.00 to 18.00 | 75 % |" in page
    drawn = {head: pairs for head, pairs in startup.panels(found).items() if pairs}
    assert [name for pairs in drawn.values() for name, _ in pairs] == ["torch", "timm", "imports"]
    assert "timm 1.00" in bars(drawn, unit="seconds", text="").get_label()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_workers_are_compared_on_the_same_jobs(tmp_path, monkeypatch, device):
    asked = []
    monkeypatch.setattr(study, "_study", lambda overrides: lambda: asked.append(overrides) or 1.0)
    monkeypatch.setattr(study, "usable_cores", lambda: 2)

    def measure(table):
        study._workers(table, Options(output=tmp_path, rounds=2, device=device))

    found = rows(tmp_path, measure, study)
    counts = (1, *study.PACKED) if device == "cuda" else (1, 2)
    assert [row["of"] for row in found] == [f"{n} worker{'s' * (n > 1)}" for n in counts]
    for overrides in asked:  # one study but for its workers
        shared = [word for word in overrides if "workers" not in word and "jobs_per_gpu" not in word]
        assert shared == found[0]["settings"].split(" ")
    for count, overrides in zip(counts, asked, strict=False):
        words = ["run", "table6_geometry", *overrides, f"runs={tmp_path}"]
        table, engine = command._frozen(command._parser().parse_args(words))
        assert len(table.jobs) >= max(counts) and engine.side_by_side(table, len(table.jobs)) == count


def test_the_made_up_study_is_finished_and_its_ends_are_told(tmp_path, monkeypatch):
    table = study.finished_study(tmp_path, 8)
    assert [state.status for state in states(table)] == ["finished"] * 8
    monkeypatch.setattr(study, "JOBS", (4, 8))
    (tmp_path / "found").mkdir()
    found = rows(tmp_path / "found", lambda table: study._bookkeeping(table, None), study)
    assert [row["jobs"] for row in found] == [4, 8]
    assert "a job's end, 8 jobs done" in study.page(found)
