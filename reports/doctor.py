"""What `ena-bench doctor` prints: what there is, how each check stands, and what to do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import units
from bench.machine import Check, Machine
from reports.summary import machine_line

_LEAD = 13
_NAME = 18


def screen(
    machine: Machine, found: Sequence[Check], contenders: Sequence[Mapping[str, Any]]
) -> str:
    """Facts, then every check, those that need a look last and with their cure.

    Args:
        contenders: Rows of `bench.listing.contenders` for the device that cases run on.
    """
    return "\n".join(_lines(machine, found, contenders))


def _lines(
    machine: Machine, found: Sequence[Check], contenders: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    device = "cuda" if machine.cuda_available else "cpu"
    yield _fact("machine", machine_line(machine.row_values(device)))
    yield _fact("host", ", ".join(_host(machine)))
    if machine.cuda_available:
        yield _fact("GPU", ", ".join(_gpu(machine)))
    installed = [f"{name} {version}" for name, version in machine.libraries.items()]
    yield _fact("libraries", ", ".join(installed) or "none of the optional ones")
    able = sum(row["here"] == "yes" for row in contenders)
    yield _fact(
        "contenders",
        f"{able} of {len(contenders)} run on {device}; `ena-bench list contenders` says which",
    )
    yield ""
    for check in sorted(found, key=lambda check: not check.ok):
        yield f"{'ok  ' if check.ok else 'LOOK'}  {check.name:<{_NAME}} {check.text}"
        if not check.ok and check.cure:
            yield f"{'':<{_NAME + 8}}try: {check.cure}"
    yield ""
    doubtful = sum(not check.ok for check in found)
    yield _fact(
        "checks",
        f"{doubtful} of {len(found)} need a look" if doubtful else f"all {len(found)} are fine",
    )


def _host(machine: Machine) -> Iterator[str]:
    """`Intel Xeon, 2 cores, 7.8 GiB, Python 3.11.7, ena-bench 0.1.0`."""
    yield machine.cpu_name
    yield units.plural(machine.num_cores, "core")
    if machine.memory_mib is not None:
        yield units.memory(machine.memory_mib)
    yield f"Python {machine.python}"
    yield f"ena-bench {machine.ena_bench or 'that is not installed'}"


def _gpu(machine: Machine) -> Iterator[str]:
    """`1 visible, 132 SMs, 140 GiB, 50 MiB of L2, up to 1980 MHz`; what is unknown is left out."""
    yield f"{machine.num_gpus} visible"
    if machine.num_sms is not None:
        yield f"{machine.num_sms} SMs"
    if machine.gpu_memory_mib is not None:
        yield units.memory(machine.gpu_memory_mib)
    if machine.l2_bytes is not None:
        yield f"{units.memory(machine.l2_bytes / 2**20)} of L2"
    if machine.max_sm_clock_mhz is not None:
        yield f"up to {machine.max_sm_clock_mhz:.0f} MHz"


def _fact(label: str, text: str) -> str:
    return f"{label:<{_LEAD}}{text}"
