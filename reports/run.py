"""A run as a user sees it: a progress bar while it measures, then the last screen."""

import json
import os
from pathlib import Path
from typing import Any

import click

from bench import listing, runner, session
from reports.progress import Progress

FAILURES = ("incorrect", "fallback", "crashed", "failed", "timeout")


def measure(active: session.Session, options: dict[str, Any]) -> runner.Summary:
    """Measure what a session has planned; say first what other programs do to the timings, and
    which options mean nothing to some cases.

    Raises:
        StorageError, EnaBenchError, KeyboardInterrupt: as `bench.runner.run`.
    """
    if not options["as_json"]:
        for line in session.disturbances(active.request.device, active.executor.machine()):
            click.echo(f"warning      {line}", err=True)
        for line in listing.left_out(active.request.named, active.planned):
            click.echo(f"note         {line}", err=True)
    # a resumed run takes an order of its own: others may be at work in its directory
    own_order = os.getpid() if options.get("resume") else 0
    with Progress(is_quiet=options["as_json"]) as progress:
        return runner.run(
            active.planned,
            active.directory,
            active.executor,
            rounds=active.request.rounds,
            seed=active.request.settings.seed + own_order,
            stop_alike=runner.MOST_ALIKE,
            budget_s=options["budget"],
            fresh_workers=options["fresh_workers"],
            on_event=progress.show,
        )


def finish(path: Path, summary: runner.Summary, options: dict[str, Any]) -> None:
    """The last screen, or the one JSON document; exit 1 if a case failed or none is ok."""
    from bench.results import load, unfinished
    from reports import screen
    from reports.report import write_report

    rows, problems = load(path)
    # the screen counts what the budget left by itself
    told = [*problems, *unfinished([path])]
    written = (
        write_report(rows, path / "report", title=path.name, problems=told)
        if options["report"]
        else None
    )
    if options["as_json"]:
        click.echo(json.dumps(screen.json_document(rows, path=path, problems=told)))
    else:
        click.echo(
            screen.final(rows, path=path, summary=summary, problems=problems, report=written)
        )
    if rows["status"].isin(FAILURES).any() or not (rows["status"] == "ok").any():
        click.get_current_context().exit(1)
