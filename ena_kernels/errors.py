"""The two errors a caller of `ena_kernels` can meet."""

from collections.abc import Collection


def message(wrong: str, expected: str, try_: str) -> str:
    """Join the three parts of every error text: what was wrong, the rule, the way out."""
    return f"{wrong}\nExpected: {expected}\nTry: {try_}"


class ShapeError(ValueError):
    """A shape, canvas, tile, window, dtype or device breaks a rule of the operator."""

    def __init__(self, wrong: str, *, expected: str, try_: str) -> None:
        super().__init__(message(wrong, expected, try_))


class UnsupportedError(NotImplementedError):
    """The arguments are sound, but this implementation is unknown or cannot run them here."""

    def __init__(self, wrong: str, *, expected: str, try_: str) -> None:
        super().__init__(message(wrong, expected, try_))


def check_impl(impl: str, known: Collection[str], operator: str) -> None:
    """Raise UnsupportedError unless an operator knows the implementation."""
    if impl not in known:
        raise UnsupportedError(
            f"impl {impl!r} is unknown to {operator}",
            expected=f"one of {', '.join(known)}",
            try_="impl='eager'",
        )
