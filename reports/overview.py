"""Text for the terminal after a long run: one line per series over all sequence lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import units
from reports import few_samples, frames
from reports.listing import Line, anchor_name, group_title, joined

Record = dict[str, Any]
SMALLEST_BLOCK = 3
"""Series that a block keeps at least when a long overview is cut."""


@dataclass(kw_only=True, slots=True)
class Block:
    """Series of one level, mode, setting and dimensionality by sequence length."""

    title: str
    lengths: list[int]
    lines: list[tuple[str, list[str]]] = field(default_factory=list)
    num_left_out: int = 0


def overview_lines(cases: Sequence[Record], width: int, most: int) -> Iterator[Line]:
    """A line per series with its speed-up (without an anchor: its latency) by sequence length.

    If that is more than `most` lines, the last series of the blocks and then the last blocks are
    left out, and a line says how many.
    """
    blocks = _blocks(cases)
    shown = _cut(blocks, most)
    label = max((len(name) + 2 for b in shown for name, _ in b.lines), default=0)
    for block in shown:
        yield from _block_lines(block, label, width)
    if len(shown) < len(blocks):
        yield Line(f"{units.plural(len(blocks) - len(shown), 'more block')} not shown here", "dim")


def _blocks(cases: Sequence[Record]) -> list[Block]:
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        if case["status"] != "unsupported" and case["seq_len"] and case["is_squarest"]:
            key = (group_title(case), case["device_id"], case["ndim"])
            groups.setdefault(key, []).append(case)
    return [_block(group) for group in groups.values()]


def _block(cases: Sequence[Record]) -> Block:
    anchor = anchor_name(cases)
    what = f"speed-up over {anchor}" if anchor else "latency"
    lengths = sorted({c["seq_len"] for c in cases})
    block = Block(title=f"{group_title(cases[0])}, {cases[0]['ndim']}-D, {what}", lengths=lengths)
    for name in frames.unique(c["series"] for c in cases):
        own = {c["seq_len"]: c for c in cases if c["series"] == name}
        cells = [_cell(own[n], anchor is not None) if n in own else "-" for n in lengths]
        block.lines.append((name, cells))
    return block


def _cell(case: Record, has_anchor: bool) -> str:
    if not frames.is_timed(case):
        return str(case["status"])
    if has_anchor:
        return few_samples.marked(units.ratio(case["speedup"]), case["is_speedup_sure"])
    return few_samples.marked(units.duration(case["latency_ms"]), case["is_sure"])


def _cut(blocks: list[Block], most: int) -> list[Block]:
    """Keep the first series of each block (baselines and ENA), then the first blocks."""
    if sum(len(b.lines) + 2 for b in blocks) <= most:
        return blocks
    kept = blocks[: max(most // (SMALLEST_BLOCK + 3), 1)]
    room = max(most // len(kept) - 3, SMALLEST_BLOCK)
    for block in kept:
        block.num_left_out = max(len(block.lines) - room, 0)
        del block.lines[room:]
    return kept


def _block_lines(block: Block, label: int, width: int) -> Iterator[Line]:
    headings = [units.tokens(n) for n in block.lengths]
    columns = list(zip(headings, *(cells for _, cells in block.lines), strict=True))
    widths = [max(map(len, column)) for column in columns]
    first = 0
    while first < len(widths) - 1 and label + sum(w + 2 for w in widths[first:]) > width:
        first += 1
    yield Line(block.title, "bold cyan")
    yield Line(joined("tokens".ljust(label), headings[first:], widths[first:]), "bold")
    for name, cells in block.lines:
        yield Line(joined(f"  {name}".ljust(label), cells[first:], widths[first:]))
    if block.num_left_out or first:
        left = [
            f"{block.num_left_out} more series" if block.num_left_out else "",
            f"lengths below {headings[first]}" if first else "",
        ]
        yield Line(f"  not shown here: {', '.join(filter(None, left))}", "dim")
