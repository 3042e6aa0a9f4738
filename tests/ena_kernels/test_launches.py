"""A launch asks Triton what to compile once, and launches what it answered from then on."""

from ena_kernels.launches import Launch


class Kernel:
    """Stands for a jitted kernel; what it compiles keeps its own list of launches."""

    arg_names = ("x", "y", "BLOCK", "STAGES")

    def __init__(self, *, is_interpreted=False):
        self.calls, self.launches = [], []
        self.is_interpreted = is_interpreted

    def __getitem__(self, grid):
        def call(*arguments, **constants):
            self.calls.append((grid, arguments, constants))
            return None if self.is_interpreted else Compiled(self.launches)

        return call


class Compiled:
    def __init__(self, launches):
        self.launches = launches

    def __getitem__(self, grid):
        return lambda *arguments: self.launches.append((grid, arguments))


# named in another order than the kernel's
CONSTANTS = {"STAGES": 3, "BLOCK": 64}


def test_the_first_launch_compiles_with_names_and_options():
    kernel = Kernel()
    Launch(kernel, 7, CONSTANTS, num_warps=8)("a", "b")
    assert kernel.calls == [((7, 1, 1), ("a", "b"), {**CONSTANTS, "num_warps": 8})]
    assert kernel.launches == []


def test_later_launches_go_to_the_compiled_kernel_in_the_order_of_its_arguments():
    kernel = Kernel()
    launch = Launch(kernel, 7, CONSTANTS, num_warps=8)
    for arguments in (("a", "b"), ("c", "d"), ("e", "f")):
        launch(*arguments)
    assert len(kernel.calls) == 1
    assert kernel.launches == [((7, 1, 1), ("c", "d", 64, 3)), ((7, 1, 1), ("e", "f", 64, 3))]


def test_what_the_interpreter_runs_is_never_compiled():
    kernel = Kernel(is_interpreted=True)
    launch = Launch(kernel, 7, CONSTANTS)
    for _ in range(3):
        launch("a", "b")
    assert len(kernel.calls) == 3
