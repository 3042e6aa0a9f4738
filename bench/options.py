"""What commands share: how errors look, and the options that many of them have."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.axes import AXES
from bench.errors import EnaBenchError, UsageError
from bench.verdict import METRICS, MUST_SEE, Limits

if TYPE_CHECKING:
    from bench.decision import Question
    from bench.session import Request

INTERRUPTED = 130
_SETTINGS = ("timer", "budget_s", "warmup_s", "precision", "min_samples", "seed")
_AXIS_HELP = {
    "level": "op, layer or model.",
    "contender": "What is measured: ena, transformer, linear, sliding_tile, attention, ...",
    "impl": "Which code computes it; best and available choose among what is installed.",
    "mode": "fwd, bwd, fwdbwd or step.",
    "canvas": "Token grid, slowest axis first: 4096, 64x64 or 16x32x32.",
    "seq_len": "Tokens, 4096 or 4k; with --ndim picks the most square canvas.",
    "ndim": "Number of canvas axes.",
    "tile": "Tile in tokens, such as 8x16.",
    "window": "Window in tokens, such as 24x48; replaces --sparsity.",
    "sparsity": "Share of key tiles to leave out, in [0, 1).",
    "scan": "Order in which the recurrence reads the canvas.",
    "scan_variant": "fixed or official.",
    "interleave": "linear-first, attention-first or stacked.",
    "permute": "Where tokens are brought into tiled order: io, qkvo or fused.",
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
        except KeyboardInterrupt as err:
            told = getattr(err, "__notes__", [])
            click.echo("\n".join(["Interrupted.", *told]), err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # the reader left; nothing more can be said, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)


@contextmanager
def saves_rows(path: Path, *more: str) -> Iterator[None]:
    """Rows measured in here are saved under a path: an interruption says so if there are any.

    Args:
        more: Lines to say then, too, rows or not.
    """
    try:
        yield
    except KeyboardInterrupt as err:
        if any(path.glob("**/results/*.parquet")):
            err.add_note(f"Everything measured so far is saved in {path}.")
        for line in more:
            err.add_note(line)
        raise


def _split(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """`--mode fwd,bwd` is `--mode fwd --mode bwd`."""
    return [part.strip() for value in values for part in value.split(",")]


def grid_options(command: Callable[..., Any], *, preset: str = "quick") -> Callable[..., Any]:
    """Which cases: a preset or a file, and an option for each axis.

    Args:
        preset: What the command takes where neither is given.
    """
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
    shipped = click.option("--preset", help=f"A shipped grid; {preset} without --grid.")
    return shipped(grid(command))


def ci_grid_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for what a gate measures."""
    return grid_options(command, preset="ci")


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


class Fraction(click.ParamType[float]):
    """`5%` or `0.05`; a bare number from 1 to 100 is a percentage whose sign was forgotten."""

    name = "fraction"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            number = float(str(value).strip().removesuffix("%"))
        except ValueError:
            number = math.nan
        is_percent = str(value).strip().endswith("%")
        if not math.isfinite(number) or (number > 100.0 and not is_percent):
            self.fail(f"{value!r} is neither like 5% nor like 0.05", param, ctx)
        if is_percent:
            return number / 100.0
        if number >= 1.0:
            self.fail(f"{value!r} would be {100 * number:g}%: write {number:g}%", param, ctx)
        return number


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How different is too different, and what is compared."""
    default = Limits()
    for option in reversed(
        (
            click.option(
                "--max-slowdown",
                type=Fraction(),
                default=f"{100 * default.max_slowdown:g}%",
                help="Tolerated slow-down; the whole interval must lie beyond it.",
            ),
            click.option(
                "--must-see",
                type=Fraction(),
                help="A case whose noise hides a slow-down of this size is not judged.  [default: "
                + ", ".join(f"{100 * size:g}% on {name}" for name, size in MUST_SEE.items())
                + "]",
            ),
            click.option(
                "--max-memory",
                type=Fraction(),
                default=f"{100 * default.max_memory:g}%",
                help="Tolerated growth of peak memory.",
            ),
            click.option(
                "--metric",
                default=default.metric,
                help=f"What is compared: {' or '.join(METRICS)}.",
            ),
            click.option(
                "--relative-to",
                metavar="NAME[/IMPL]",
                help="Compare speed-ups over this contender of the same run: works across GPUs.",
            ),
            click.option(
                "--control",
                metavar="NAME[/IMPL]",
                help="Its code did not change: if its time does, the machine changed (exit 4).",
            ),
            click.option(
                "--new-kernels",
                is_flag=True,
                help="Compare cases although other kernels run now.",
            ),
        )
    ):
        command = option(command)
    return command


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the result goes besides the screen."""
    for option in reversed(
        (
            click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML here."),
            click.option(
                "--markdown", type=click.Path(path_type=Path), help="Write a Markdown page here."
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


def request_of(options: dict[str, Any], *, rounds: int = 1) -> "Request":
    """What `grid_options` and `measure_options` ask for."""
    from bench.session import request

    return request(
        preset=options["preset"],
        grid_file=options["grid_file"],
        axes={axis: options[axis] for axis in AXES},
        settings=settings_of(options),
        device=options["device"],
        timeout_s=options["timeout"],
        rounds=rounds,
    )


def settings_of(options: dict[str, Any]) -> dict[str, Any]:
    """Those of `measure_options` that are settings of `bench.timing`, None where not given."""
    return {name: options[name] for name in _SETTINGS}


def question_of(options: dict[str, Any], candidate: Path | None = None) -> "Question":
    """What `limit_options` ask of a candidate, or of one that is still to be measured."""
    from bench import baseline
    from bench.contenders import check_anchor
    from bench.decision import Question

    for option in ("control", "relative_to"):
        if options[option] is not None:
            check_anchor(option.replace("_", "-"), options[option])
    names = ("max_slowdown", "must_see", "max_memory", "metric", "control", "new_kernels")
    limits = Limits(**{name: options[name] for name in names})
    unmeasured = {} if candidate is None else baseline.unmeasured(candidate)
    return Question(limits=limits, relative_to=options["relative_to"], unmeasured=unmeasured)


def say_of(options: dict[str, Any]) -> Callable[[str], None]:
    """Tells what begins on stderr, unless one document is all that is wanted."""

    def say(text: str) -> None:
        if not options["as_json"]:
            click.echo(f"measuring    {text}", err=True)

    return say


def refuse_with_resume() -> None:
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


def show_plan(made: "Request", *, as_json: bool) -> None:
    """Print the cases of a request and why any cannot run; nothing is measured.

    Exit code 1 if none can run, as of the run itself.
    """
    from bench import listing, session, units
    from bench.machine import facts

    planned = session.plan(made, facts())
    rows = listing.cases(planned)
    num_runnable = sum(item.reason is None for item in planned)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for line in listing.left_out(made.named, planned):
            click.echo(f"note         {line}", err=True)
        click.echo(listing.text(rows))
        click.echo(
            f"{units.plural(len(planned), 'case')}, {num_runnable} can run here, "
            f"{units.plural(made.rounds, 'visit')} each"
        )
    if not num_runnable:
        click.echo("No case could run here.", err=True)
        click.get_current_context().exit(1)
