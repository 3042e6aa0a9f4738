"""Which runs and series a figure shows."""

import pandas as pd

from reports import frames, selection


def cases(*rows):
    return frames.records(frames.tidy(pd.DataFrame(list(rows))))


def runs(row, number):
    return [
        row(
            run_id=f"z{number - i}",
            git_commit=f"{i}aaaaaaaaa",
            started_at=f"2026-02-{i + 1:02d}T00:00:00+00:00",
        )
        for i in range(number)
    ]


def test_a_single_run_is_shown_whole_and_nothing_is_said(row):
    everything = cases(row(), row(mode="bwd"))
    assert selection.shown(everything) == everything
    assert selection.note(everything) == ""


def test_of_many_runs_the_latest_by_time_are_shown(row):
    everything = cases(*runs(row, 6))
    assert selection.latest_runs(everything) == [f"{i}aaaaaa" for i in (2, 3, 4, 5)]
    assert len(selection.shown(everything)) == 4
    assert selection.note(everything) == "2 earlier runs not drawn (ena-bench history)."


def test_the_first_series_of_very_many_are_shown(row):
    many = [row(contender="linear", impl=f"i{i:02d}") for i in range(selection.MAX_SERIES + 1)]
    everything = cases(row(), *many)
    shown = selection.shown(everything)
    assert len(shown) == selection.MAX_SERIES
    assert shown[0]["contender"] == "transformer"
    assert selection.note(everything).startswith("2 more series not drawn")


def test_nothing_is_shown_of_nothing():
    assert selection.shown([]) == []
    assert selection.note([]) == ""
