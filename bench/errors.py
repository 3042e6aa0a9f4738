"""Every error a user of the command line can cause, with the exit code it ends in."""

from typing import ClassVar, Self

from ena_kernels.errors import ShapeError


class EnaBenchError(Exception):
    """What was wrong, what was expected, what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, wrong: str, *, expected: str, try_: str) -> None:
        self.wrong = wrong
        self.expected = expected
        self.try_ = try_
        super().__init__(f"{wrong}\nExpected: {expected}\nTry: {try_}")


class UsageError(EnaBenchError):
    """The request itself is wrong; nothing was measured."""

    exit_code = 2

    @classmethod
    def from_shape(cls, err: ShapeError) -> Self:
        """The geometry library's complaint as an error of the command line."""
        wrong, expected, try_ = str(err).split("\n")
        return cls(
            wrong, expected=expected.removeprefix("Expected: "), try_=try_.removeprefix("Try: ")
        )


class StorageError(EnaBenchError):
    """A run directory or result file cannot be written, or must not be read."""
