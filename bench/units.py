"""Every number becomes text here, so that screen, table, figure and page agree.

Three significant digits everywhere, integers never rounded away, `n/a` for what is unknown.
`k` of tokens is 1024, because sequence lengths are powers of two; `k` of a rate is 1000.
"""

import math

NOT_AVAILABLE = "n/a"
TOKENS_PER_K = 1024

_DURATIONS_MS = ((1e3, "s"), (1.0, "ms"), (1e-3, "us"), (1e-6, "ns"))
_MEMORIES_MIB = ((1024.0**2, "TiB"), (1024.0, "GiB"), (1.0, "MiB"), (1 / 1024, "KiB"))
_RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def is_missing(value: float | None) -> bool:
    """None, NaN and infinities are no numbers to show."""
    return value is None or not math.isfinite(value)


def significant(value: float | None, digits: int = 3) -> str:
    """`0.512`, `12.3`, `1,235`: `digits` significant digits, integer digits are all kept."""
    if value is None or is_missing(value):
        return NOT_AVAILABLE
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    if exponent < -4:
        return scientific
    return f"{value:,.{max(digits - 1 - exponent, 0)}f}"


def duration(value_ms: float | None) -> str:
    """`512 us`, `12.3 ms`, `1.23 s`, and from two minutes on `2 min 5 s`, `1 h 5 min`."""
    if value_ms is None or is_missing(value_ms):
        return NOT_AVAILABLE
    seconds = round(value_ms / 1e3)
    if seconds >= 7200:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    if seconds >= 120:
        return f"{seconds // 60} min {seconds % 60} s"
    return _scaled(value_ms, _DURATIONS_MS)


def memory(value_mib: float | None) -> str:
    """`512 MiB`, `1.25 GiB`."""
    if value_mib is None or is_missing(value_mib):
        return NOT_AVAILABLE
    return _scaled(value_mib, _MEMORIES_MIB)


def rate(value_per_s: float | None, unit: str = "") -> str:
    """`1.23M`, or `1.23M tokens/s` with a unit; the prefix is decimal."""
    if value_per_s is None or is_missing(value_per_s):
        return NOT_AVAILABLE
    text = _scaled(value_per_s, _RATES).replace(" ", "")
    return f"{text} {unit}".rstrip()


def ratio(value: float | None) -> str:
    """`3.10x`."""
    text = significant(value)
    return text if text == NOT_AVAILABLE else f"{text}x"


def percent(fraction: float | None, decimals: int = 1) -> str:
    """`0.8%` for 0.008."""
    if fraction is None or is_missing(fraction):
        return NOT_AVAILABLE
    return f"{100 * fraction:.{decimals}f}%"


def known_to(fraction: float | None) -> str:
    """`0.8%` for an interval that reaches so far, `a factor of 21.3` for one beyond 100%."""
    if fraction is None or is_missing(fraction) or fraction <= 1.0:
        return percent(fraction)
    return f"a factor of {significant(1.0 + fraction)}"


def percent_label(fraction: float | None) -> str:
    """`70%`, `99.5%`: a percentage that people chose, without digits they did not write."""
    if fraction is None or is_missing(fraction):
        return NOT_AVAILABLE
    return f"{round(100 * fraction, 2):g}%"


def tokens(value: float | None) -> str:
    """`512`, `2k`, `112.5k`, `1M`: a sequence length, k = 1024."""
    if value is None or is_missing(value):
        return NOT_AVAILABLE
    for size, suffix in ((TOKENS_PER_K**2, "M"), (TOKENS_PER_K, "k")):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + suffix
    return f"{value:.0f}"


def count(value: float | None) -> str:
    """`12,345`."""
    if value is None or is_missing(value):
        return NOT_AVAILABLE
    return f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """`1 case`, `1,200 cases`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _scaled(value: float, scales: tuple[tuple[float, str], ...]) -> str:
    """In the largest unit that keeps an integer digit after rounding; zero in the base unit."""
    fitting = (s for s in scales if abs(value) / s[0] >= 0.9995 or (value == 0 and s[0] == 1.0))
    size, unit = next(fitting, scales[-1])
    return f"{significant(value / size)} {unit}"
