"""What a command asks of the harness: a device, settings, a plan, and a run to put rows into."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from bench.contenders import lookup
from bench.errors import UsageError
from bench.grid import Grid, Planned, expand, load_file, load_preset, override

if TYPE_CHECKING:
    from bench.executor import Executor
    from bench.machine import Machine
    from bench.results import RunDirectory
    from bench.timing import Settings

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the user asked for, before any machine was looked at.

    Args:
        named: The axes that the command line named.
    """

    grid: Grid
    settings: "Settings"
    device: str = "auto"
    timeout_s: float = DEFAULT_TIMEOUT_S
    rounds: int = 1
    named: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """The part of it that run.toml keeps."""
        return {
            "grid": self.grid.name,
            "device": self.device,
            "timeout_s": self.timeout_s,
            "rounds": self.rounds,
            "settings": self.settings.to_dict(),
        }


def request(
    *,
    preset: str | None,
    grid_file: Path | None,
    axes: Mapping[str, Sequence[str]],
    settings: Mapping[str, Any],
    device: str,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    rounds: int = 1,
) -> Request:
    """Read a grid, put the command line's values over it, and check everything that can be.

    Raises:
        UsageError: any of it is wrong.
    """
    from bench.timing import Settings

    if preset and grid_file:
        raise UsageError(
            "--preset and --grid are both given",
            expected="one grid to start from",
            try_=f"--grid {grid_file}",
        )
    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise UsageError(
            f"device {device!r} is unknown",
            expected=f"one of {', '.join(DEVICES)}, or cuda:1 for the second GPU",
            try_="--device auto",
        )
    for name, value in (("timeout", timeout_s), ("rounds", rounds)):
        if not value > 0:
            raise UsageError(
                f"{name} {value:g} is not positive", expected="more than 0", try_=f"--{name} 1"
            )
    grid = load_file(grid_file) if grid_file else load_preset(preset or "quick")
    given = {name: value for name, value in settings.items() if value is not None}
    return Request(
        grid=override(grid, axes),
        settings=Settings.from_dict({**grid.measure, **given}),
        device=device,
        timeout_s=timeout_s,
        rounds=rounds,
        named=tuple(axis for axis, values in axes.items() if values),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A planned run: its cases, its warm worker, and where rows go."""

    request: Request
    planned: Sequence[Planned]
    directory: "RunDirectory"
    executor: "Executor"


def plan(made: Request, machine: "Machine") -> list[Planned]:
    """The cases of a request on this machine.

    Raises:
        UsageError: CUDA was asked for and is absent, or the grid cannot be expanded here.
    """
    return expand(made.grid, device=decided(made.device, machine).partition(":")[0])


@contextmanager
def new_session(
    made: Request, path: Path, *, measure: str = "bench.measurement:measure"
) -> Iterator[Session]:
    """Start a worker, plan the cases on this machine, and make the run directory.

    Raises:
        UsageError: the plan is wrong; the directory is not left behind.
        StorageError: the directory holds something, or cannot be written.
    """
    from bench.results import RunDirectory
    from bench.timing import resolve_timer

    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    with executor_of(made, path / "log.txt", measure=measure) as executor:
        RunDirectory.prepare(path)
        try:
            machine = executor.machine()
            planned = plan(made, machine)
            made = replace(made, device=decided(made.device, machine))
            resolve_timer(made.settings.timer, made.device.partition(":")[0])
        except UsageError:
            _undo(path / "log.txt", absent)
            raise
        directory = RunDirectory.create(
            path,
            run_id=new_run_id(path),
            cases=[item.case for item in planned],
            options=made.options(),
        )
        yield Session(request=made, planned=planned, directory=directory, executor=executor)


@contextmanager
def resumed_session(path: Path) -> Iterator[Session]:
    """Take up the cases and options that a run directory was made with.

    Raises:
        StorageError: this is no run directory, or one of another schema version.
        UsageError: it was made for CUDA and there is none here.
    """
    from bench.results import RunDirectory
    from bench.timing import Settings

    directory = RunDirectory.open(path)
    options = directory.options
    made = Request(
        grid=Grid(name=options["grid"], description="", blocks=()),
        settings=Settings.from_dict(options["settings"]),
        device=options["device"],
        timeout_s=options["timeout_s"],
        rounds=options["rounds"],
    )
    planned = [Planned(case=case, reason=lookup(case).why_not(case)) for case in directory.cases]
    with executor_of(made, directory.log_path) as executor:
        decided(made.device, executor.machine())
        yield Session(request=made, planned=planned, directory=directory, executor=executor)


@contextmanager
def executor_of(
    made: Request, log_path: Path, *, measure: str = "bench.measurement:measure"
) -> Iterator["Executor"]:
    """A warm worker for the request's device, which may still be `auto`; ended at the end."""
    from bench.executor import Executor

    with Executor(
        device=made.device,
        settings=made.settings,
        timeout_s=made.timeout_s,
        log_path=log_path,
        measure=measure,
    ) as executor:
        yield executor


def decided(device: str, machine: "Machine") -> str:
    """The device with `auto` settled: CUDA where there is one.

    Raises:
        UsageError: CUDA was asked for and is absent.
    """
    if device == "auto":
        return "cuda" if machine.cuda_available else "cpu"
    if device != "cpu" and not machine.cuda_available:
        raise UsageError(
            f"device {device} was asked for, and torch {machine.torch} sees no CUDA device",
            expected="an NVIDIA GPU, its driver, and a torch built for CUDA",
            try_="--device cpu, or ena-bench doctor to see what is missing",
        )
    return device


def disturbances(device: str, machine: "Machine") -> list[str]:
    """What other programs do to timings on a device, with the cure; empty on a quiet machine."""
    from bench.machine import checks

    of_interest = {"load"} | ({"other processes"} if device.startswith("cuda") else set())
    return [
        f"{check.name}: {check.text}; {check.cure}"
        for check in checks(machine)
        if check.name in of_interest and not check.ok
    ]


def new_run_path() -> Path:
    """Where a run goes unless the user says: runs/ and the time in UTC."""
    return Path("runs") / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def new_run_id(path: Path) -> str:
    """The name of the directory and six digits: rows of two runs called alike stay apart."""
    return f"{path.resolve().name}-{token_hex(3)}"


def _undo(log: Path, made: Sequence[Path]) -> None:
    """Remove what starting a worker left: its log, and the directories made for it."""
    with suppress(OSError):
        log.unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
