"""Studies: tables of ablations that run by themselves and lose nothing.

python -m src.study plan table6_geometry                      # every job, its price, what the seeds can show
python -m src.study run table6_geometry seeds=3 data=fashion_mnist engine.workers=4
python -m src.study status table6_geometry
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.commands import command
from src.runs.durations import seconds
from src.studies.definition import StudyError, parse_seeds, read_study
from src.studies.latest import latest_table
from src.studies.snapshot import folder_of
from src.studies.states import states
from src.studies.summary import summary
from src.studies.table import Table, find_tables, read_table

if TYPE_CHECKING:  # importing torch takes seconds, which only plan and run need
    from src.studies.engines.base import Engine

RUNS = "runs"  # conf/train.yaml's


@command()
def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 for success, 1 if jobs have no result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)  # stdout may be read by scripts
    options = _parser().parse_args(arguments)
    code: int = options.act(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def subcommand(name: str, act: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(act=act)
        return made

    def with_study(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("study", help="a folder of experiments/, or the path of a study.yaml")
        made.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="seeds=6, engine=slurm, engine.workers=4, or anything of conf/, for all rows",
        )
        return made

    plan = with_study(subcommand("plan", _plan, "every job, what it will cost, and what its seeds can show"))
    plan.add_argument("--json", action="store_true", help="for scripts")
    plan.add_argument("--budget", type=seconds, metavar="TIME", help="refuse what takes longer, such as 2h")
    plan.add_argument(
        "--no-probe", action="store_true", help="don't try the variants; estimate from finished runs only"
    )

    run = with_study(subcommand("run", _run, "run what isn't finished"))
    run.add_argument("--budget", type=seconds, metavar="TIME", help="refuse what takes longer, such as 2h")
    run.add_argument("--table", metavar="KEY", help="one that was frozen before, with its code, as `status` names it")
    run.add_argument("--detach", action="store_true", help="with engine=slurm: submit, and don't wait")

    status = with_study(subcommand("status", _status, "how far it is"))
    status.add_argument("--json", action="store_true", help="for scripts")
    status.add_argument("--once", action="store_true", help="don't follow it on a terminal")

    logs = with_study(subcommand("logs", _logs, "last lines of jobs, and tracebacks of failed ones"))
    logs.add_argument("--job", action="append", metavar="ROW[/seedN]", help="only these; else all that have failed")
    logs.add_argument("--lines", type=int, default=20, help="how many (20)")

    retry = with_study(
        subcommand("retry", _retry, "run failed and diverged jobs once more, diverged ones from the start")
    )
    retry.add_argument("--job", action="append", metavar="ROW[/seedN]", help="only these")

    clean = subcommand("clean", _clean, "what no longer matches a config; removes nothing without --delete")
    clean.add_argument("study", help="a folder of experiments/, or the path of a study.yaml")
    clean.add_argument("overrides", nargs="*", metavar="runs=FOLDER", help=f"the folder of all runs ({RUNS})")
    clean.add_argument("--delete", action="store_true", help="remove it")

    pack = with_study(subcommand("pack", _pack, "finished runs without checkpoints, as one file for another machine"))
    pack.add_argument("-o", "--output", type=Path, help="STUDY.tar.gz, if not said")

    unpack = subcommand("unpack", _unpack, "merge what was packed elsewhere; it counts as done here")
    unpack.add_argument("archive", type=Path)
    unpack.add_argument("--runs", type=Path, default=Path(RUNS), help=f"the folder of all runs ({RUNS})")
    unpack.add_argument("--keep-ours", action="store_true", help="where results contradict, keep those here")
    return parser


# ------------------------------------------------------------------------------------- plan and run


def _plan(options: argparse.Namespace) -> int:
    from src.studies.plan import estimate, refuse_what_does_not_fit, said

    table, engine = _frozen(options)
    plan = estimate(table, engine, probe=not options.no_probe)
    print(json.dumps(plan, indent=1) if options.json else said(plan), flush=True)
    refuse_what_does_not_fit(plan, options.budget)
    return 0


def _run(options: argparse.Namespace) -> int:
    from src.studies.freeze import check_all
    from src.studies.plan import estimate, refuse_what_does_not_fit
    from src.studies.runner import run_jobs, to_do

    if options.table is None:
        table, engine = _frozen(options)
        check_all(table)
        table = _with_code(table)
    else:
        table, engine = _frozen_before(options)
    if options.budget is not None:
        refuse_what_does_not_fit(estimate(table, engine, probe=True), options.budget)
    if options.detach:
        engine.detach()
    return run_jobs(table, to_do(table), engine)


def _retry(options: argparse.Namespace) -> int:
    from src.studies.retry import begin_anew
    from src.studies.runner import run_jobs

    table, engine = _frozen(options)
    chosen = [state for state in _chosen(table, options.job) if state.status in ("failed", "diverged")]
    if not chosen:
        raise StudyError(f"study {table.study} has no failed or diverged job{' of these' if options.job else ''}")
    for state in chosen:
        if state.status == "diverged":
            begin_anew(table, state)
    return run_jobs(_with_code(table), [state.job for state in chosen], engine)


def _frozen(options: argparse.Namespace) -> "tuple[Table, Engine]":
    """The study's table as its files and the command say now, and the engine."""
    from src.studies.engines.choose import choose_engine
    from src.studies.freeze import freeze

    study_overrides = [o for o in options.overrides if not _is(o, "seeds") and not _is(o, "engine")]
    study = read_study(options.study)
    for override in options.overrides:
        if _is(override, "seeds"):
            study = study.with_seeds(parse_seeds(override.partition("=")[2]))
    engine = choose_engine([override for override in options.overrides if _is(override, "engine")])
    return freeze(study, study_overrides), engine


def _frozen_before(options: argparse.Namespace) -> "tuple[Table, Engine]":
    """The table `--table`, which other overrides than the engine's can't change any more."""
    from src.studies.engines.choose import choose_engine

    said = dict(override.partition("=")[::2] for override in options.overrides if not _is(override, "engine"))
    runs = Path(said.pop("runs", RUNS))
    if said:
        raise StudyError(f"{' '.join(said)}: a table that was frozen stays as it is; leave out --table to make another")
    name = read_study(options.study).name
    paths = {path.stem: path for path in find_tables(runs, name)}
    if options.table not in paths:
        there = ", ".join(paths) or "none"
        raise StudyError(f"study {name} has no table {options.table!r} below {runs}; it has {there}")
    table = read_table(paths[options.table])
    if table.code is None or not folder_of(runs, table.code).is_dir():
        raise StudyError(f"the code of table {table.key} isn't in {runs} any more; leave out --table to freeze anew")
    return table, choose_engine([override for override in options.overrides if _is(override, "engine")])


def _with_code(table: Table) -> Table:
    from src.studies.snapshot import take_snapshot

    return table.with_code(take_snapshot(table.runs))


def _is(override: str, key: str) -> bool:
    return override.partition("=")[0].partition(".")[0] == key


# ------------------------------------------------------------------------- what only reads run folders


def _status(options: argparse.Namespace) -> int:
    from src.studies.view import console, follow, lines

    table = _latest(options)
    if options.json:
        print(json.dumps(summary(table, states(table)), indent=1))
    elif options.once or not console().is_terminal:
        print("\n".join(lines(summary(table, states(table)))))
    else:
        follow(lambda: summary(table, states(table)))
    return 0


def _logs(options: argparse.Namespace) -> int:
    from src.studies.logs import last_words

    table = _latest(options)
    chosen = _chosen(table, options.job)
    if not options.job:
        chosen = [state for state in chosen if state.status in ("failed", "diverged", "damaged", "lost", "interrupted")]
        if not chosen:
            print("no job has failed; --job ROW shows the last lines of others")
    for state in chosen:
        print(last_words(table, state, options.lines), flush=True)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from src.studies.clean import delete, leftovers

    runs, study = _runs(options), read_study(options.study)
    found = leftovers(study, runs)
    for thing in found:
        print(thing)
    if not found:
        print(f"everything below {runs / study.name} matches the study")
    elif options.delete:
        delete(found)
        print(f"removed {len(found)}")
    else:
        print(f"{len(found)} to remove; nothing is removed without --delete")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from src.studies.archive import pack

    table = _latest(options)
    finished = [state.folder for state in states(table) if state.status == "finished"]
    archive = options.output or Path(f"{table.study}.tar.gz")
    packed = pack(finished, table.runs, archive, table)
    print(f"{archive}: {packed} of {len(table.jobs)} runs, {archive.stat().st_size / 1e6:.1f} MB")
    return 0


def _unpack(options: argparse.Namespace) -> int:
    from src.studies.archive import unpack

    merged = unpack(options.archive, options.runs, keep_ours=options.keep_ours)
    print(f"{len(merged.added)} runs added, {len(merged.known)} known already")
    for run in merged.contradictions:
        print(f"contradicts ours, which is kept: {run}")
    return 0


def _latest(options: argparse.Namespace) -> Table:
    return latest_table(read_study(options.study).name, options.overrides, RUNS)


def _runs(options: argparse.Namespace) -> Path:
    """Raises StudyError for anything but `runs=FOLDER`."""
    said = dict(override.partition("=")[::2] for override in options.overrides)
    runs = Path(said.pop("runs", RUNS))
    if said:
        raise StudyError(f"{' '.join(options.overrides)}: all tables of the study are looked at; give runs= or nothing")
    return runs


def _chosen(table: Table, jobs: list[str] | None) -> list[Any]:
    """States of `jobs`, each a row or a row/seedN; of all if there are none."""
    found = states(table)
    if not jobs:
        return found
    known = {str(state.job) for state in found} | set(table.variants)
    for job in jobs:
        if job not in known:
            raise StudyError(f"no job {job!r}; jobs are ROW or ROW/seedN, with rows {', '.join(table.variants)}")
    return [state for state in found if str(state.job) in jobs or state.job.name in jobs]


if __name__ == "__main__":
    sys.exit(main())
