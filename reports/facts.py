"""What every run was measured on, as a table: a line per fact, a column per run and machine."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from bench import units
from reports import frames, words
from reports.tables import Column, Table

Record = dict[str, Any]


def facts_table(cases: Sequence[Record]) -> Table:
    """Facts that are known of any run; a line whose cells differ is marked `differs`."""
    runs: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        if case["device_name"] is not None:
            runs.setdefault((case["run_id"], case["device_name"], case["device_id"]), []).append(
                case
            )
    found = {name: [text(own) for own in runs.values()] for name, text in _FACTS}
    lines = {name: texts for name, texts in found.items() if any(texts)}
    headings = [Column(str(run or device), is_number=False) for run, device, _ in runs]
    return Table(
        columns=(Column("run", is_number=False), *headings),
        lines=[
            [name, *(text or units.NOT_AVAILABLE for text in texts)]
            for name, texts in lines.items()
        ],
        marks=["differs" if len(set(texts)) > 1 else "ok" for texts in lines.values()],
    )


def _values(name: str) -> Callable[[Sequence[Record]], str]:
    """The values of a column, such as several versions within one run."""
    return lambda cases: ", ".join(map(str, frames.unique(c[name] for c in cases)))


def _range(lowest: str, highest: str, unit: str) -> Callable[[Sequence[Record]], str]:
    def text(cases: Sequence[Record]) -> str:
        lows = frames.unique(c[lowest] for c in cases)
        highs = frames.unique(c[highest] for c in cases)
        if not lows or not highs:
            return ""
        ends = dict.fromkeys((units.significant(min(lows)), units.significant(max(highs))))
        return f"{' to '.join(ends)} {unit}"

    return text


def _commits(cases: Sequence[Record]) -> str:
    found = frames.unique(words.commit(c) for c in cases)
    return ", ".join(text.removeprefix("commit ") for text in found)


def _libraries(cases: Sequence[Record]) -> str:
    """Versions of optional libraries, which rows hold as JSON."""
    return ", ".join(_listed(text) for text in frames.unique(c["libraries"] for c in cases))


def _listed(text: str) -> str:
    try:
        versions = json.loads(text)
    except ValueError:
        return text
    if not isinstance(versions, dict):
        return text
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _peak_compute(cases: Sequence[Record]) -> str:
    """The measured peak of each type."""
    peaks: dict[str, float] = {}
    for case in cases:
        if case["peak_tflops_per_s"] is not None:
            name = str(case["dtype"])
            peaks[name] = max(peaks.get(name, 0.0), case["peak_tflops_per_s"])
    return ", ".join(f"{name} {units.significant(peak)} TFLOP/s" for name, peak in peaks.items())


def _throttling(cases: Sequence[Record]) -> str:
    held = [c for c in cases if c["throttle_reasons"]]
    if not held:
        return ""
    reasons = frames.unique(reason for c in held for reason in c["throttle_reasons"])
    return f"{units.plural(len(held), 'case')} ({', '.join(map(str, reasons))})"


def _started(cases: Sequence[Record]) -> str:
    return min((str(c["started_at"]) for c in cases if c["started_at"]), default="")


_FACTS: tuple[tuple[str, Callable[[Sequence[Record]], str]], ...] = (
    ("device", _values("device_name")),
    ("started", _started),
    ("cases", lambda cases: str(len(cases))),
    ("commit", _commits),
    ("ena-bench", _values("ena_bench")),
    ("driver", _values("driver")),
    ("CUDA", _values("cuda")),
    ("Python", _values("python")),
    ("torch", _values("torch")),
    ("triton", _values("triton")),
    ("libraries", _libraries),
    ("measured peak", _peak_compute),
    ("measured copy", _range("peak_bandwidth_gb_per_s", "peak_bandwidth_gb_per_s", "GB/s")),
    ("SM clock while timing", _range("sm_clock_mhz_min", "sm_clock_mhz_max", "MHz")),
    ("power while timing", _range("power_w_min", "power_w_max", "W")),
    ("temperature while timing", _range("temperature_c_min", "temperature_c_max", "deg C")),
    ("clock held down by the driver", _throttling),
)
