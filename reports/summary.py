"""What the numbers say, in sentences: for the page, the Markdown file and the terminal."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench import units
from reports import frames, series, speedup, words
from reports.scaling import Crossover, Scaling

Record = dict[str, Any]

_NUMBER = re.compile(r"\d[\d.,]*(?: (?:ns|us|ms|s|[KMG]iB)\b)?")
"""A number, with the unit that goes by its size."""
_AMOUNTS = (re.compile(r"(\d[\d,]*(?:\.\d+)?)%"), re.compile(r"(\d[\d,]*(?:\.\d+)?)"))
"""A percentage, else any number."""
_LEVELS = re.compile(r"from 5% to 95%|no 95% interval")
"""Percentages in warnings that are the same in all of them."""
_LESS_IS_WORSE = ("too few", "throttled")
"""Fewer samples, and a lower clock to lock."""
_DOUBTS = ("noisy:", "not converged:", "too few samples:")
"""How warnings begin that make a latency itself doubtful."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Cases that say the same thing up to numbers."""

    text: str
    num_cases: int
    example: str
    lead: str = "such as"

    @property
    def sentence(self) -> str:
        """The text and its case; the number of cases where it stands for several."""
        if self.num_cases == 1:
            return f"{self.text} ({self.example})"
        return f"{self.text} ({units.plural(self.num_cases, 'case')}, {self.lead} {self.example})"


def machine_line(case: Mapping[str, Any]) -> str:
    """`NVIDIA H100 80GB HBM3 | driver 570.1 | torch 2.11.0 | triton 3.6.0 | commit a1b2c3d`."""
    versions = [f"{n} {case[n]}" for n in ("driver", "cuda", "torch", "triton") if case[n]]
    parts = [case["device_name"] or "unknown device", *versions, words.commit(case)]
    return " | ".join(str(p) for p in parts if p)


def machine_lines(frame: pd.DataFrame) -> list[str]:
    """One line per machine, in order of appearance."""
    return [machine_line(m) for m in frames.machines(frame)]


def correctness_line(cases: Sequence[Mapping[str, Any]]) -> str:
    """`14 of 14 cases agree with float64 (worst uses 0.41 of its error budget)`."""
    compared = [c for c in cases if c["verified"] or c["status"] == "incorrect"]
    if not compared:
        return "no case was compared with float64"
    agreeing = [c for c in compared if c["status"] != "incorrect"]
    budgets = [c["error_budget_used"] for c in agreeing if c["error_budget_used"] is not None]
    line = f"{len(agreeing)} of {units.plural(len(compared), 'case')} agree with float64"
    if budgets:
        line += f" (worst uses {units.significant(max(budgets), 2)} of its error budget)"
    return line


def outcome_line(cases: Sequence[Mapping[str, Any]]) -> str:
    """`120 cases: 110 ok, 6 unsupported, 4 out of memory`."""
    parts = []
    for status, word in words.STATUS_WORDS.items():
        number = sum(c["status"] == status for c in cases)
        if number:
            parts.append(f"{number} {word}")
    return f"{units.plural(len(cases), 'case')}: {', '.join(parts) or 'none'}"


def warning_groups(cases: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Warnings of all cases, frequent ones first; of those that differ in numbers, the worst."""
    found = [(w, c) for c in cases for w in c["warnings"] or ()]
    found.sort(key=lambda member: -_severity(member[0]))
    return [replace(group, lead="worst in") for group in _grouped(found)]


def failure_groups(cases: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Cases without a result by status and reason, unsupported ones left out."""
    failed = [c for c in cases if c["status"] not in ("ok", "unsupported")]
    return _grouped([(_reason(c), c) for c in failed])


def unsupported_groups(cases: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Cases that cannot run here, by reason."""
    found = [(str(c["reason"] or "no reason given"), c) for c in cases]
    return _grouped([(text, c) for text, c in found if c["status"] == "unsupported"])


def sentences(frame: pd.DataFrame, table: Sequence[Scaling]) -> list[str]:
    """Per level, mode, setting, dimensionality and run: where ENA stands against its rivals.

    Args:
        frame: From `frames.tidy`.
        table: From `scaling.scaling_table` of the same frame.
    """
    cases = frames.records(frame)
    blocks: dict[tuple[Any, ...], list[Scaling]] = {}
    for line in table:
        blocks.setdefault((line.block, line.run_label), []).append(line)
    found = []
    for lines in blocks.values():
        headline = [n for n in lines if n.contender == words.headline(n.level)]
        if headline:
            sentence = _block_sentence(headline, lines, cases)
            found.append(f"{_place(lines[0], table)}: {sentence}")
    return found


def _place(line: Scaling, table: Sequence[Scaling]) -> str:
    """`Layer, forward, 2-D`, with setting and device where its level was measured in several."""
    of_level = [other for other in table if other.level == line.level]
    told = [
        str(getattr(line, name))
        for name in ("setting", "device_name")
        if len({getattr(other, name) for other in of_level}) > 1
    ]
    place = f"{words.heading(line.level, line.mode)}, {line.ndim}-D"
    return f"{place} ({', '.join(told)})" if told else place


def _block_sentence(
    headline: Sequence[Scaling], lines: Sequence[Scaling], cases: Sequence[Record]
) -> str:
    best = max(
        headline, key=lambda n: (n.pair_seq_len or 0, bool(n.is_speedup_sure), n.speedup or 0.0)
    )
    rival = series.NAMES[speedup.anchor_contender(best.level)]
    parts = [
        _verdict(best) if best.anchor else f"{best.series} has no {rival} to be compared with",
        *_against_linear(best, lines),
        *_anchor_failures(best, cases, rival),
        *_doubts(best, cases),
    ]
    return "; ".join(parts) + "."


def _verdict(line: Scaling) -> str:
    cross = line.crossover or Crossover(verdict="never")
    length = units.tokens(cross.seq_len)
    unclear = ", ".join(units.tokens(n) for n in cross.unclear_lengths)
    unclear = f", if not clearly so at {unclear}" if unclear else ""
    text = {
        "always": f"is faster than {line.anchor} wherever both were measured{unclear}",
        "never": f"is nowhere faster than {line.anchor}{unclear}",
        "from": f"overtakes {line.anchor} at about {length} tokens{_range(cross)}",
        "until": f"is faster than {line.anchor} only up to about {length} tokens{_range(cross)}",
        "unsure": f"has too few samples to be compared with {line.anchor}",
    }[cross.verdict]
    if cross.unsure_lengths and cross.verdict != "unsure":
        text += f", not judged at {', '.join(map(units.tokens, cross.unsure_lengths))} for too "
        text += "few samples"
    interval = f"{units.ratio(line.speedup_lo)} to {units.ratio(line.speedup_hi)}"
    if (line.speedup_lo or 0.0) <= 1 <= (line.speedup_hi or 0.0):
        interval += ", no clear difference"
    if not line.is_speedup_sure:
        interval += ", of too few samples to be sure"
    text += f"; at {units.tokens(line.pair_seq_len)} its speed-up is "
    text += f"{units.ratio(line.speedup)} ({interval})"
    if line.memory_ratio is not None:
        text += f", using {units.ratio(line.memory_ratio)} as much memory"
    return f"{line.series} {text}"


def _range(cross: Crossover) -> str:
    if cross.lo is None or cross.hi is None:
        return ""
    low, high = units.tokens(cross.lo), units.tokens(cross.hi)
    return f" (between {low} and {high})" if low != high else ""


def _against_linear(best: Scaling, lines: Sequence[Scaling]) -> list[str]:
    """How the headline compares with the fastest linear model at its largest length."""
    rivals = [n for n in lines if n.contender == "linear" and n.top_seq_len == best.top_seq_len]
    if not rivals:
        return []
    rival = min(rivals, key=lambda n: n.top_latency_ms)
    ratio = units.ratio(rival.top_latency_ms / best.top_latency_ms)
    is_sure = best.is_top_sure and rival.is_top_sure
    doubt = "" if is_sure else " (of too few samples to be sure)"
    return [f"at {units.tokens(best.top_seq_len)} {rival.series} takes {ratio} its time{doubt}"]


def _anchor_failures(best: Scaling, cases: Sequence[Record], rival: str) -> list[str]:
    """Lengths at which the anchor contender gave no result although it was tried."""
    same = ("level", "mode", "setting", "device_name", "run_label", "ndim")
    contender = speedup.anchor_contender(best.level)
    tried = [
        c
        for c in cases
        if c["contender"] == contender
        and c["status"] != "unsupported"
        and all(c[n] == getattr(best, n) for n in same)
    ]
    timed = {c["seq_len"] for c in tried if frames.is_timed(c)}
    failed = [c for c in tried if c["seq_len"] not in timed]
    if not failed:
        return []
    lengths = ", ".join(units.tokens(n) for n in sorted({c["seq_len"] for c in failed}))
    why = ", ".join(sorted({words.STATUS_WORDS[c["status"]] for c in failed}))
    return [f"{rival} gave no result at {lengths} ({why})"]


def _doubts(best: Scaling, cases: Sequence[Record]) -> list[str]:
    """How many of the cases that a sentence rests on are noisy or did not converge."""
    same = ("level", "mode", "setting", "device_name", "run_label", "ndim")
    behind = [
        c
        for c in cases
        if frames.is_timed(c)
        and (c["series"] == best.series or c["contender"] == speedup.anchor_contender(best.level))
        and all(c[n] == getattr(best, n) for n in same)
    ]
    doubtful = sum(any(w.startswith(_DOUBTS) for w in c["warnings"] or ()) for c in behind)
    if not doubtful:
        return []
    number = f"{doubtful} of the {units.plural(len(behind), 'case')}"
    return [f"{number} behind this {'is' if doubtful == 1 else 'are'} noisy or not converged"]


def _severity(warning: str) -> float:
    """Its percentage, else its first number; of samples and clocks the fewest are worst."""
    text = _LEVELS.sub("", warning)
    found = next((m for pattern in _AMOUNTS if (m := pattern.search(text))), None)
    if found is None:
        return 0.0
    number = float(found[1].replace(",", ""))
    return -number if warning.startswith(_LESS_IS_WORSE) else number


def _reason(case: Mapping[str, Any]) -> str:
    reason = str(case["reason"] or "no reason given").strip().splitlines() or [""]
    return f"{words.STATUS_WORDS.get(case['status'], case['status'])}: {reason[0]}"


def _grouped(found: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Group]:
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for text, case in found:
        groups.setdefault(_NUMBER.sub("#", text), []).append((text, case))
    listed = [
        Group(
            text=members[0][0],
            num_cases=len({id(case) for _, case in members}),
            example=str(members[0][1]["case_path"] or members[0][1]["series"]),
        )
        for members in groups.values()
    ]
    return sorted(listed, key=lambda g: -g.num_cases)
