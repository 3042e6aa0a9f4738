"""Launches of Triton kernels whose host time does not grow with the number of arguments.

At every launch Triton looks at each argument for what to compile the kernel for, which costs more
Python than the rest of a short operator.
"""

from collections.abc import Mapping

from torch import Tensor


def alignment(*tensors: Tensor | None) -> tuple[bool | None, ...]:
    """Whether each starts at a multiple of 16 bytes, which decides what Triton compiles."""
    return tuple(None if x is None else x.data_ptr() % 16 == 0 for x in tensors)


class Launch:
    """A launch of one kernel with arguments that differ only in what compiles to the same code.

    So for its owner pointers are aligned alike, integers are as specialized, and tensor maps have
    one box and dtype, call by call, on one device. Triton is asked once; from then on the compiled
    kernel is launched.
    """

    __slots__ = ("_constants", "_grid", "_kernel", "_options", "_run", "_values")

    def __init__(self, kernel, grid: int, constants: Mapping[str, object], **options: object):
        """Of `grid` programs.

        Args:
            constants: The kernel's constexprs, which follow its other arguments.
            options: What Triton is told beside the arguments, such as ``num_warps``.
        """
        self._kernel, self._grid = kernel, (grid, 1, 1)
        self._constants, self._options = constants, options
        self._run = None
        self._values: tuple[object, ...] = ()

    def __call__(self, *arguments: object) -> None:
        """Launch on the current device and stream; the arguments are the kernel's, in its order."""
        if self._run is not None:
            self._run(*arguments, *self._values)
            return
        kernel = self._kernel
        compiled = kernel[self._grid](*arguments, **self._constants, **self._options)
        # the interpreter compiles nothing
        if compiled is not None:
            names = kernel.arg_names[len(arguments) :]
            self._values = tuple(self._constants[name] for name in names)
            self._run = compiled[self._grid]
