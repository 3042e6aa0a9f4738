"""The command line of ena-bench: parses, calls, prints. Whatever is heavy loads when needed."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.axes import AXES
from bench.errors import EnaBenchError, UsageError

if TYPE_CHECKING:
    from bench.runner import Summary
    from bench.session import Request, Session

INTERRUPTED = 130
_AXIS_HELP = {
    "level": "op, layer or model.",
    "contender": "What is measured: ena, transformer, linear, sliding_tile, attention, ...",
    "impl": "Which code computes it; best and available choose among what is installed.",
    "mode": "fwd, bwd, fwdbwd or step.",
    "canvas": "Token grid, slowest axis first: 4096, 64x64 or 16x32x32.",
    "seq_len": "Tokens; with --ndim picks the most square canvas.",
    "ndim": "Number of canvas axes.",
    "tile": "Tile in tokens, such as 8x16.",
    "window": "Window in tokens, such as 24x48; replaces --sparsity.",
    "sparsity": "Share of key tiles to leave out, in [0, 1).",
    "scan": "Order in which the recurrence reads the canvas.",
    "scan_variant": "fixed or official.",
    "interleave": "linear-first, attention-first or stacked.",
    "permute": "Where tokens are brought into tiled order: io or qkvo.",
    "batch": "Sequences.",
    "heads": "Heads.",
    "head_dim": "Width of a head.",
    "size": "tiny, small, base or large: heads, head_dim and depth together.",
    "depth": "Number of blocks.",
    "dtype": "float32, bfloat16, float16 or float64.",
}


class FriendlyGroup(click.Group):
    """Show an EnaBenchError as text with its exit code; let a bug show its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EnaBenchError as err:
            click.echo(f"Error: {err}", err=True)
            ctx.exit(err.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted. Everything measured so far is saved.", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # the reader left; nothing more can be said, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)


def _split(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """`--mode fwd,bwd` is `--mode fwd --mode bwd`."""
    return [part.strip() for value in values for part in value.split(",")]


def grid_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which cases: a preset or a file, and an option for each axis."""
    for axis in reversed(AXES):
        command = click.option(
            f"--{axis.replace('_', '-')}",
            axis,
            multiple=True,
            callback=_split,
            metavar="VALUE",
            help=_AXIS_HELP[axis],
            show_default=False,
        )(command)
    grid = click.option(
        "--grid",
        "grid_file",
        type=click.Path(path_type=Path),
        help="Your own grid, a TOML file.",
    )
    preset = click.option("--preset", help="A shipped grid; quick without --grid.")
    return preset(grid(command))


def measure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where and how carefully."""
    for option in reversed(
        (
            click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
            click.option("--timer", help="auto, events, graph or wall.  [default: auto]"),
            click.option("--budget-s", type=float, help="Sampling time for each case, seconds."),
            click.option("--warmup-s", type=float, help="Warm-up for each case, seconds."),
            click.option("--precision", type=float, help="Wanted half-width of the interval."),
            click.option("--min-samples", type=int, help="Samples at least."),
            click.option("--seed", type=int, help="Seed of inputs and weights.  [default: 0]"),
            click.option("--timeout", default=300.0, help="Seconds before a case is given up."),
        )
    ):
        command = option(command)
    return command


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def _request(options: dict[str, Any], *, rounds: int = 1) -> "Request":
    from bench.session import request

    return request(
        preset=options["preset"],
        grid_file=options["grid_file"],
        axes={axis: options[axis] for axis in AXES},
        settings={name: options[name] for name in _SETTINGS},
        device=options["device"],
        timeout_s=options["timeout"],
        rounds=rounds,
    )


_SETTINGS = ("timer", "budget_s", "warmup_s", "precision", "min_samples", "seed")


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
        _refuse_with_resume()
    if options["dry_run"]:
        _show_plan(options)
        return
    if options["resume"]:
        opened = session.resumed_session(options["resume"])
    else:
        made = _request(options, rounds=options["rounds"])
        opened = session.new_session(made, options["out"] or session.new_run_path())
    with opened as active:
        try:
            summary = _measure_all(active, options)
        except KeyboardInterrupt:
            click.echo(f"next         ena-bench run --resume {active.directory.path}", err=True)
            raise
    _finish(active.directory.path, summary, options)


def _measure_all(active: "Session", options: dict[str, Any]) -> "Summary":
    from bench import runner
    from reports.progress import Progress

    with Progress(is_quiet=options["as_json"]) as progress:
        return runner.run(
            active.planned,
            active.directory,
            active.executor,
            rounds=active.request.rounds,
            seed=_order_seed(active, options),
            budget_s=options["budget"],
            fresh_workers=options["fresh_workers"],
            on_event=progress.show,
        )


def _order_seed(active: "Session", options: dict[str, Any]) -> int:
    """A resumed run takes an order of its own: others may be at work in its directory."""
    return active.request.settings.seed + (os.getpid() if options.get("resume") else 0)


def _finish(path: Path, summary: "Summary", options: dict[str, Any]) -> None:
    """The last screen, or the one JSON document; exit 1 if a case failed or none is ok."""
    from bench.results import load
    from reports import screen
    from reports.report import write_report

    rows, problems = load(path)
    written = (
        write_report(rows, path / "report", title=path.name, problems=problems)
        if options["report"]
        else None
    )
    if options["as_json"]:
        click.echo(json.dumps(screen.json_document(rows, path=path, problems=problems)))
    else:
        click.echo(
            screen.final(rows, path=path, summary=summary, problems=problems, report=written)
        )
    if rows["status"].isin(_FAILURES).any() or not (rows["status"] == "ok").any():
        click.get_current_context().exit(1)


_FAILURES = ("incorrect", "fallback", "crashed", "failed", "timeout")


def _refuse_with_resume() -> None:
    """A resumed run has its cases and settings; options that would change them are an error."""
    context = click.get_current_context()
    free = ("resume", "budget", "report", "as_json", "fresh_workers")
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in free
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"--resume is given with {', '.join(given)}",
            expected="a resumed run to keep the cases and settings it was made with",
            try_=f"ena-bench run --resume {context.params['resume']}",
        )


def _show_plan(options: dict[str, Any]) -> None:
    from bench import listing, session, units
    from bench.machine import facts

    planned = session.plan(_request(options, rounds=options["rounds"]), facts())
    rows = listing.cases(planned)
    if options["as_json"]:
        click.echo(json.dumps(rows))
        return
    click.echo(listing.text(rows))
    num_runnable = sum(item.reason is None for item in planned)
    click.echo(
        f"{units.plural(len(planned), 'case')}, {num_runnable} can run here, "
        f"{units.plural(options['rounds'], 'visit')} each"
    )


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory for the pages.")
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw figures (PNG and SVG), report.html and report.md from runs."""
    from bench.results import load
    from reports.report import write_report

    rows, problems = load(list(runs))
    folder = out or (runs[0] / "report" if runs[0].is_dir() else Path("report"))
    title = ", ".join(path.name for path in runs)
    written = write_report(rows, folder, title=title, problems=problems)
    for problem in problems:
        click.echo(f"WARNING  {problem}", err=True)
    click.echo(f"report   {written.html}")


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
    from reports import screen

    made = _request(options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verify"
        with session.new_session(made, path, measure="bench.measurement:check") as active:
            _measure_all(active, options | {"budget": None, "fresh_workers": False})
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

    made = _request(options)
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
        rows = listing.cases(session.plan(_request(options), facts()))
    click.echo(json.dumps(rows) if options["as_json"] else listing.text(rows))


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write.")
def export(runs: tuple[Path, ...], out: Path) -> None:
    """Put the rows of runs into one parquet file, such as a baseline kept in git."""
    from bench.results import export as export_rows

    for problem in export_rows(list(runs), out):
        click.echo(f"WARNING  {problem}", err=True)
    click.echo(f"saved    {out}")


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """The machine, what is installed, what makes timings unreliable, and the cure."""
    from dataclasses import asdict

    from bench.machine import checks, facts

    machine = facts()
    found = checks(machine)
    if as_json:
        listed = {"machine": asdict(machine), "checks": [asdict(check) for check in found]}
        click.echo(json.dumps(listed))
        return
    for check in found:
        click.echo(f"{'ok  ' if check.ok else 'LOOK'}  {check.name:<18} {check.text}")
        if not check.ok and check.cure:
            click.echo(f"{'':<26}try: {check.cure}")


if __name__ == "__main__":
    main(prog_name="ena-bench")
