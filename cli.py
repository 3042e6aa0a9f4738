"""The command line of ena-bench: parses, calls, prints. Whatever is heavy loads when needed."""

import json
from pathlib import Path
from typing import Any

import click

from bench.errors import UsageError
from bench.options import (
    FriendlyGroup,
    ci_grid_options,
    grid_options,
    json_option,
    limit_options,
    measure_options,
    output_options,
    question_of,
    refuse_with_resume,
    request_of,
    saves_rows,
    say_of,
    settings_of,
    show_plan,
)


@click.group(
    cls=FriendlyGroup,
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="ena-bench", prog_name="ena-bench")
def main() -> None:
    """When does ENA beat a FlashAttention Transformer? Measured honestly, on this machine."""


@main.command()
@grid_options
@measure_options
@click.option("--rounds", default=1, help="Visits to each case.")
@click.option("--fresh-workers", is_flag=True, help="A new process for each round.")
@click.option("--budget", type=float, help="Seconds after which no case is begun.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Run directory to make.")
@click.option("--resume", type=click.Path(path_type=Path), help="Run directory to go on with.")
@click.option("--dry-run", is_flag=True, help="List the cases and why any cannot run.")
@click.option("--report", is_flag=True, help="Draw the report when done.")
@json_option
def run(**options: Any) -> None:
    """Measure a grid of cases; with no option the preset quick on the best device."""
    from bench import session

    if options["budget"] is not None and not options["budget"] > 0:
        raise UsageError(
            f"budget {options['budget']:g} is not positive",
            expected="seconds after which no case is begun",
            try_="--budget 300",
        )
    if options["resume"]:
        refuse_with_resume()
    if options["dry_run"]:
        made = request_of(options, rounds=options["rounds"])
        show_plan(made, as_json=options["as_json"])
        return
    from reports import run as shown

    if options["resume"]:
        opened = session.resumed_session(options["resume"])
    else:
        made = request_of(options, rounds=options["rounds"])
        opened = session.new_session(made, options["out"] or session.new_run_path())
    with opened as active:
        path = active.directory.path
        with saves_rows(path, f"next         ena-bench run --resume {path}"):
            summary = shown.measure(active, options)
    with saves_rows(path):
        shown.finish(path, summary, options)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Directory for the pages.  [default: RUN/report; report-A-B here for several runs]",
)
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw figures (PNG, SVG and PDF), report.html and report.md from runs."""
    from bench.results import load, unfinished
    from reports.report import default_folder, write_report

    rows, problems = load(list(runs))
    problems += unfinished(runs)
    folder = out or default_folder(runs)
    title = ", ".join(path.name for path in runs)
    written = write_report(rows, folder, title=title, problems=problems, runs=runs)
    for problem in problems:
        click.echo(f"WARNING  {problem}", err=True)
    click.echo(f"report   {written.html}")


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("history"),
    help="Directory for the pages.",
)
@json_option
def history(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Draw every case over many runs, with changes marked: history.html and history.md."""
    from bench.results import load, unfinished
    from reports import history_page

    rows, problems = load(list(runs))
    written = history_page.write(rows, out, problems=[*problems, *unfinished(runs)])
    click.echo(json.dumps(written.document) if as_json else written.screen)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def claims(runs: tuple[Path, ...], as_json: bool) -> None:
    """Hold the claims about ENA against runs: confirmed, refuted, mixed or not tested."""
    from bench.results import load, unfinished
    from reports import claims as claimed

    rows, problems = load(list(runs))
    told = claimed.document if as_json else claimed.screen
    found = told(rows, problems=[*problems, *unfinished(runs)])
    click.echo(json.dumps(found) if as_json else found)


@main.command()
@grid_options
@measure_options
@json_option
def verify(**options: Any) -> None:
    """Compare every case with float64, forward and gradients; time nothing.

    Exit code 1 if a case is wrong or failed, or if none could run here.
    """
    import tempfile

    from bench import session
    from reports import run as shown
    from reports import screen

    made = request_of(options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verify"
        with session.new_session(made, path, measure="bench.measurement:check") as active:
            shown.measure(active, options | {"budget": None, "fresh_workers": False})
            rows = active.directory.rows()
    if options["as_json"]:
        click.echo(json.dumps(screen.verification_json(rows)))
    else:
        click.echo(screen.verification(rows))
    is_right = rows["status"].isin(["ok", "unsupported"]).all()
    if not (is_right and (rows["status"] == "ok").any()):
        click.get_current_context().exit(1)


@main.command()
@grid_options
@measure_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("traces"),
    help="Directory for the trace and the table.",
)
@json_option
def profile(out: Path, **options: Any) -> None:
    """Profile one case: Chrome trace, kernels, and the share of time of each component."""
    from bench import session
    from bench.machine import facts
    from bench.profile import profile as profile_case
    from bench.profile import profile_text

    made = request_of(options)
    planned = session.plan(made, facts())
    runnable = [item.case for item in planned if item.reason is None]
    if len(planned) != 1 or not runnable:
        reason = planned[0].reason if len(planned) == 1 else f"{len(planned)} cases are planned"
        raise UsageError(
            f"nothing to profile: {reason}",
            expected="options that leave exactly one case, which can run here",
            try_="ena-bench profile --level layer --contender ena --seq-len 1024 --ndim 2 "
            "--mode fwd --sparsity 0.7",
        )
    found = profile_case(runnable[0], out, seed=made.settings.seed)
    click.echo(json.dumps(found.to_dict()) if options["as_json"] else profile_text(found))


@main.command(name="list")
@click.argument("what", type=click.Choice(["contenders", "presets", "cases", "scans"]))
@grid_options
@measure_options
@json_option
def list_(what: str, **options: Any) -> None:
    """What there is, and why any of it is not available here."""
    from bench import listing, session
    from bench.machine import facts

    if what == "presets":
        rows = listing.presets()
    elif what == "scans":
        rows = listing.scans()
    elif what == "contenders":
        rows = listing.contenders(session.decided(options["device"], facts()).partition(":")[0])
    else:
        rows = listing.cases(session.plan(request_of(options), facts()))
    click.echo(json.dumps(rows) if options["as_json"] else listing.text(rows))


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--to",
    "form",
    type=click.Choice(["parquet", "pytest-benchmark"]),
    default="parquet",
    help="Format of the file.",
)
def export(runs: tuple[Path, ...], out: Path, form: str) -> None:
    """Put the rows of runs into one file: parquet for a baseline, or JSON of pytest-benchmark.

    Exit code 1 if rows cannot be read; the file holds the others.
    """
    from bench.results import require_whole, unfinished

    if form == "parquet":
        from bench.results import export as export_rows
    else:
        from bench.pytest_benchmark import export as export_rows

    problems = export_rows(list(runs), out)
    for problem in [*problems, *unfinished(runs)]:
        click.echo(f"WARNING  {problem}", err=True)
    click.echo(f"saved    {out}")
    if problems:
        require_whole(runs, out)


@main.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@limit_options
@output_options
def compare(baseline: Path, candidate: Path, **options: Any) -> None:
    """Compare two runs or exported files case by case; whatever it finds, it exits 0."""
    from bench import baseline as baselines
    from reports.comparison import Run
    from reports.comparison_files import tell

    before, old_problems = baselines.read(baseline)
    after, new_problems = baselines.read(candidate)
    runs = Run(name=str(baseline), rows=before), Run(name=str(candidate), rows=after)
    found = question_of(options, candidate).compare(before, after)
    tell(found, runs, options, [*old_problems, *new_problems])


@main.command()
@click.option(
    "--baseline",
    required=True,
    type=click.Path(path_type=Path),
    help="Run directory or exported file to hold against.",
)
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@limit_options
@click.option(
    "--rounds", type=int, help="Visits to each case.  [default: half the baseline's, 5 at least]"
)
@measure_options
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Run directory to make.")
@output_options
def check(baseline: Path, candidate: Path | None, **options: Any) -> None:
    """The gate: fail if anything got slower, needs more memory or broke.

    Without CANDIDATE the baseline's own cases are measured here, in fresh processes, and those that
    look slow up to three times more. Exit codes: 0 passed, 1 failure, 2 usage, 3 regression, 4 not
    comparable or undecided.
    """
    from bench import baseline as baselines
    from bench import gate
    from reports.comparison import Run
    from reports.comparison_files import tell
    from reports.progress import Progress

    before, problems = baselines.read(baseline)
    baselines.require_whole(baseline)
    question = question_of(options, candidate)
    if candidate is not None:
        after, more = baselines.read(candidate)
        found, problems = question.compare(before, after), problems + more
    else:
        plan = gate.plan(baseline, before, options, settings_of(options))
        with saves_rows(plan.path), Progress(is_quiet=options["as_json"]) as progress:
            found, after = gate.check(before, question, plan, progress.show, say_of(options))
        candidate = plan.path
    runs = Run(name=str(baseline), rows=before), Run(name=str(candidate), rows=after)
    tell(found, runs, options, problems)
    click.get_current_context().exit(found.exit_code)


@main.command()
@click.argument("ref_a")
@click.argument("ref_b", required=False)
@ci_grid_options
@limit_options
@click.option("--rounds", default=5, help="Visits by each revision; a CPU needs 10 or more.")
@measure_options
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory for both runs.")
@output_options
def ab(ref_a: str, ref_b: str | None, **options: Any) -> None:
    """Compare two git revisions, measured in turn on this machine: A B, B A, A B, ...

    REF_B is the working tree unless given. Each revision has a worktree and workers of its own;
    kernels may differ. Exit codes as for check.
    """
    from bench import ab as pairs
    from bench.session import new_run_path
    from bench.worktree import revisions
    from reports.comparison import Run
    from reports.comparison_files import tell
    from reports.progress import Progress

    if not (options["preset"] or options["grid_file"]):
        options["preset"] = "ci"
    made, out = request_of(options, rounds=options["rounds"]), options["out"] or new_run_path()
    question, say = question_of(options), say_of(options)
    with (
        saves_rows(out),
        revisions(Path(), [ref_a, ref_b]) as found,
        Progress(is_quiet=options["as_json"]) as progress,
    ):
        pair = pairs.compare_revisions(made, found, question, out, progress.show, say)
    names = [f"{r.name} in {out / folder}" for r, folder in zip(found, "ab", strict=True)]
    runs = Run(name=names[0], rows=pair.baseline), Run(name=names[1], rows=pair.candidate)
    tell(pair.comparison, runs, options, [])
    click.get_current_context().exit(pair.comparison.exit_code)


@main.command()
@click.option("--real", is_flag=True, help="Measure gates on this machine, slow-downs included.")
@click.option("--gates", default=300, help="Simulated, without and with each slow-down.")
@click.option("--cases", type=int, help="Of a gate.  [default: 30; with --real all there are]")
@click.option("--rounds", type=int, help="Of the baseline.  [default: 10 on a GPU, 20 on a CPU]")
@click.option("--noise", help="cpu, h200, cpu-bimodal, or a run directory.  [default: cpu]")
@click.option("--device", default="auto", help="For --real: auto, cpu, cuda or cuda:N.")
@click.option(
    "--budget",
    type=float,
    help="Seconds after which no gate begins, with --real no round.  [default: 900 with --real]",
)
@click.option("--seed", default=0, help="Seed of the simulation and of the order of visits.")
@json_option
def selftest(**options: Any) -> None:
    """Measure the comparator: false alarms, and slow-downs of 2, 5 and 10% that it finds."""
    from reports import selftest as tested

    tested.show(options)


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """The machine, what is installed, what makes timings unreliable, and the cure."""
    from dataclasses import asdict

    from bench import listing
    from bench.machine import checks, facts
    from reports import doctor as told

    machine = facts()
    found = [*checks(machine), *listing.published_checks()]
    if as_json:
        listed = {"machine": asdict(machine), "checks": [asdict(check) for check in found]}
        click.echo(json.dumps(listed))
        return
    able = listing.contenders("cuda" if machine.cuda_available else "cpu")
    click.echo(told.screen(machine, found, able))


if __name__ == "__main__":
    main(prog_name="ena-bench")
