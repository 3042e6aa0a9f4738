"""The two errors a caller of `ena_kernels` can meet."""


def message(wrong: str, expected: str, try_: str) -> str:
    """Join the three parts of every error text: what was wrong, the rule, the way out."""
    return f"{wrong}\nExpected: {expected}\nTry: {try_}"


class ShapeError(ValueError):
    """A shape, canvas, tile, window, dtype or device breaks a rule of the operator."""

    def __init__(self, wrong: str, *, expected: str, try_: str) -> None:
        super().__init__(message(wrong, expected, try_))


class UnsupportedError(NotImplementedError):
    """The arguments are sound, but this implementation cannot run them here."""

    def __init__(self, wrong: str, *, expected: str, try_: str) -> None:
        super().__init__(message(wrong, expected, try_))
