"""What benchmarks share: competitions, memory, tables, the command line. Nothing here depends on how fast it runs."""

import csv
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from src import benchmark
from src.benchmarks import measure
from src.benchmarks.figures import curves, ratios
from src.benchmarks.measure import Progress, Spread, Table, Timing, compete, markdown, read_table, saved_bytes, timed
from src.benchmarks.options import Options
from src.runs.exit_codes import INTERRUPTED


def scripted(name, seconds, calls):
    """A version that takes the given seconds, one after the other, by its own word."""
    left = iter(seconds)

    def version():
        calls.append(name)
        return next(left)

    return version


def test_versions_take_turns_and_the_order_rotates():
    calls = []
    versions = {name: scripted(name, [9.0, 1, 1, 1], calls) for name in "abc"}
    compete(versions, baseline="a", rounds=3, between=lambda: None)
    assert "".join(calls) == "cab" + "abc" + "bca" + "cab"  # the first three warm up


def test_ratios_compare_times_of_one_round_and_the_warm_up_does_not_count():
    versions = {"slow": scripted("slow", [50.0, 4, 8, 2], []), "fast": scripted("fast", [99.0, 1, 4, 2], [])}
    found = compete(versions, baseline="slow", rounds=3, between=lambda: None)
    assert found["fast"] == Timing((1, 4, 2), (4, 2, 1))
    assert found["slow"].times_as_fast == (1, 1, 1)
    row = found["fast"].row()
    assert [row[f"times_as_fast{end}"] for end in ("", "_low", "_high")] == [2, 1.5, 3]
    assert (row["ms"], row["ms_low"], row["ms_high"], row["rounds"]) == (2000, 1500, 3000, 3)


def test_a_baseline_that_does_not_compete_is_refused():
    with pytest.raises(ValueError, match="no version 'c' to compare with; there are a, b"):
        compete({"a": lambda: 1.0, "b": lambda: 1.0}, baseline="c", rounds=1)


def test_quartiles_hold_the_middle_half():
    assert Spread.of(range(1, 6)) == Spread(3, 2, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_timed_does_the_work_and_takes_some_time():
    done = []
    assert timed(lambda: done.append(1))() > 0
    assert done == [1]


def test_saved_bytes_counts_each_storage_once_and_no_parameters():
    x = torch.randn(4, 10, requires_grad=True)
    net = nn.Linear(10, 10)
    assert saved_bytes(lambda: net(x), [*net.parameters(), x]) == 0
    assert saved_bytes(lambda: net(x), net) == x.numel() * 4
    # Two activations of which each is saved by the next operation, one of them twice, and views of one storage.
    assert saved_bytes(lambda: (net(x).sigmoid() ** 2)[:, :3].exp(), net) == (40 + 40 + 12) * 4


def test_what_is_recomputed_is_not_saved():
    x, net = torch.randn(4, 10, requires_grad=True), nn.Sequential(nn.Linear(10, 10), nn.GELU(), nn.Linear(10, 10))
    plain = saved_bytes(lambda: net(x), net)
    recomputed = saved_bytes(lambda: torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False), net)
    assert plain == 3 * 160
    assert recomputed == 160


def test_a_cpu_has_no_peak():
    assert measure.peak_bytes(lambda: torch.ones(3), "cpu") is None


def test_a_table_is_whole_after_each_row(tmp_path):
    table = Table(tmp_path / "new" / "results.csv", Options(output=tmp_path))
    table.add(case="a", ms=1 / 3)
    assert [row["case"] for row in read_table(table.path)] == ["a"]
    table.add(case="b", saved_mb=2)
    first, second = read_table(table.path)
    assert (first["ms"], first["saved_mb"], second["ms"], second["saved_mb"]) == (0.33333, None, None, 2)
    assert first["torch"].startswith(torch.__version__.split("+")[0])
    with table.path.open(newline="") as file:
        assert next(csv.reader(file))[:3] == ["case", "ms", "saved_mb"]  # the machine comes last
    assert measure.recorded_on(table.rows).startswith("Recorded on ")


def test_markdown_puts_what_is_asked_for_in_columns():
    rows = [
        {"name": "a", **Timing((2, 2), (1, 1)).row(), "saved": 3e6},
        {"name": "b", **Timing((1, 1), (2, 4)).row(), "saved": None},
    ]
    said = markdown(
        rows, {"version": measure.text("name"), "ratio": measure.ratio, "MB": measure.number("saved", 1, measure.MB)}
    )
    assert said.splitlines()[2:] == ["| a | 1 | 3.0 |", "| b | 3.00 (2.50 to 3.50) |  |"]


def test_progress_estimates_by_weights(capsys, monkeypatch):
    now = iter([0.0, 10.0])
    monkeypatch.setattr(measure.time, "monotonic", lambda: next(now))
    progress = Progress([1, 4])
    progress.begin("small")
    progress.begin("large")
    assert capsys.readouterr().err.splitlines() == ["[1/2] small", "[2/2] large, about 40 s left"]


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with measure.set_up(Options(output=None, threads=before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_command_line_hands_on_what_it_is_asked(monkeypatch, tmp_path):
    asked, kept = [], []
    monkeypatch.setattr(benchmark, "import_module", lambda name: SimpleNamespace(run=lambda o: asked.append((name, o))))
    monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: kept.append(True))
    assert benchmark.main(["step", "--quick", "--rounds", "3", "--only", "a", "--output", str(tmp_path)]) == 0
    wanted = Options(output=tmp_path, rounds=3, quick=True, parts=("a",), freed_memory="kept")
    assert asked == [("src.benchmarks.step", wanted)] and kept == [True]
    benchmark.main(["op", "--freed-memory", "returned"])
    assert asked[1][1].output == benchmark.OUTPUT / "op_memory_returned" and kept == [True]
    benchmark.main(["op"])
    assert asked[2][1].output == benchmark.OUTPUT / "op"


def test_what_the_user_can_put_right_is_one_line(monkeypatch, capsys):
    def run(options):
        options.chosen(["time", "memory"])

    monkeypatch.setattr(benchmark, "import_module", lambda name: SimpleNamespace(run=run))
    assert benchmark.main(["op", "--only", "speed"]) == 2
    assert capsys.readouterr().err == "--only speed: this benchmark has the parts time, memory\n"
    for wrong in (["op", "--rounds", "1"], ["op", "--threads", "0"], ["ops"]):
        with pytest.raises(SystemExit) as stop:
            benchmark.main(wrong)
        assert stop.value.code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no CUDA device"), measure.set_up(Options(output=None, device="cuda")):
        pass


def test_an_interrupted_benchmark_says_where_its_rows_are(monkeypatch, capsys, tmp_path):
    def run(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "import_module", lambda name: SimpleNamespace(run=run))
    assert benchmark.main(["op", "--output", str(tmp_path)]) == INTERRUPTED
    assert str(tmp_path) in capsys.readouterr().err


def test_figures_draw_what_was_measured():
    row = Timing((1, 1, 1), (1.5, 2, 2.5)).row()
    figure = ratios({"float32": [("ours", row)], "bfloat16": [("ours", row)]}, baseline="theirs", text="A note.")
    assert [axes.get_title("left") for axes in figure.axes] == ["float32", "bfloat16"]
    line, dot = figure.axes[0].lines[1:]
    assert list(line.get_xdata()) == [1.75, 2.25]
    assert list(dot.get_xdata()) == [2]
    figure = curves({"ms": {"ours": [(1, 3), (2, 6)]}}, x="images", first="ours", text="A note.")
    assert list(figure.axes[0].lines[0].get_ydata()) == [3, 6]
