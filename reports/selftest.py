"""A self-test as a user sees it: simulated at once, or measured cycle by cycle."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import baseline, real_selftest, session
from bench.errors import UsageError
from bench.executor import Executor
from bench.options import INTERRUPTED
from bench.recorded_noise import recorded_or_fitted
from bench.selftest import simulate
from bench.selftest_report import Report, Trial
from bench.verdict import Limits

if TYPE_CHECKING:
    from bench.case import Case

SIMULATED_CASES = 30
PRESET = "ci"
WARMUP_S = 0.05
BUDGET_S = 0.1
REAL_BUDGET_S = 900.0
"""Of a self-test that measures, unless the user says."""


def show(options: Mapping[str, Any]) -> None:
    """Run a self-test and print what it found; Ctrl-C leaves the cycles that are complete.

    Raises:
        UsageError: an option is out of range, or does not go with `--real`.
        EnaBenchError: a case cannot be measured.
        click.exceptions.Exit: it was interrupted; what is complete is printed.
    """
    say, budget_s = _say_of(options), options["budget"]
    if budget_s is not None and not budget_s > 0:
        raise UsageError(
            f"budget {budget_s:g} is not positive",
            expected="seconds after which no gate is begun, with --real no round",
            try_="--budget 600",
        )
    if not options["real"]:
        model = recorded_or_fitted(options["noise"] or "cpu")
        trial = _trial(options, model.device, options["cases"] or SIMULATED_CASES)
        told = _progress_of(options)
        _print(simulate(model, trial, budget_s=budget_s or math.inf, on_gate=told), options)
        return
    _refuse_simulation(options)
    found: Report | None = None
    try:
        with _operators(options["device"]) as (cases, executor):
            chosen = cases[: options["cases"]]
            trial = _trial(options, _device_of(cases), max(len(chosen), 1))
            for report in real_selftest.reports(
                chosen, executor, trial, Limits(), budget_s=budget_s or REAL_BUDGET_S, say=say
            ):
                found = report
    except KeyboardInterrupt:
        click.echo("Interrupted. The cycle in progress does not count.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        if found is not None:
            _print(found, options)


def _device_of(cases: "list[Case]") -> str:
    """The kind of device that cases run on; a CPU where there are none."""
    return cases[0].device if cases else "cpu"


@contextmanager
def _operators(device: str) -> "Iterator[tuple[list[Case], Executor]]":
    """The operators of the preset ci that can run on a device, and what slows and times them."""
    made = session.request(
        preset=PRESET,
        grid_file=None,
        axes={"level": ["op"]},
        settings={"warmup_s": WARMUP_S, "budget_s": BUDGET_S},
        device=device,
    )
    with (
        tempfile.TemporaryDirectory(prefix="ena-bench-selftest-") as folder,
        session.executor_of(
            made, Path(folder) / "log.txt", measure="bench.injection:measure"
        ) as executor,
    ):
        planned = session.plan(made, executor.machine())
        yield [item.case for item in planned if item.reason is None], executor


def _trial(options: Mapping[str, Any], device: str, num_cases: int) -> Trial:
    return Trial(
        num_gates=options["gates"],
        num_cases=num_cases,
        num_rounds=options["rounds"] or baseline.ROUNDS[device],
        seed=options["seed"],
    )


def _refuse_simulation(options: Mapping[str, Any]) -> None:
    if options["noise"] is not None:
        raise UsageError(
            f"--noise {options['noise']} is given with --real",
            expected="noise to simulate with, or the machine's own",
            try_="ena-bench selftest --real",
        )


def _say_of(options: Mapping[str, Any]) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not options["as_json"]:
            click.echo(f"measuring    {text}", err=True)

    return say


def _progress_of(options: Mapping[str, Any]) -> Callable[[int, int], None]:
    """Tells every tenth of the gates."""

    def on_gate(num_done: int, num_total: int) -> None:
        tenth = 10 * num_done // num_total
        if not options["as_json"] and tenth > 10 * (num_done - 1) // num_total:
            click.echo(f"simulating   {num_done} of {num_total} gates are done", err=True)

    return on_gate


def _print(found: Report, options: Mapping[str, Any]) -> None:
    click.echo(json.dumps(found.to_dict()) if options["as_json"] else found.text())
