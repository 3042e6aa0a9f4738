"""Compile a kernel for Hopper (sm_90) where there is no GPU, and look at the machine code.

Runs in a process of its own without TRITON_INTERPRET, which the tests around it set. Run as a
program it reads its orders from standard input.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTHS = {".64": 8, ".128": 16, "16": 2, "8": 1}
"""Marks of a load or store and the bytes it moves, else four; the first that fits counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Binary:
    """What ptxas made of a kernel.

    registers: per thread. local_bytes: stack and spills per thread. shared_bytes: per program.
    opcodes: how often each SASS instruction occurs, by its name before the first dot.
    early_reads: loads of spilled halves and pairs that precede, in the order of the code, every
    store to where they read. ptxas 12.8 wrote such code once, and a gradient was wrong.
    """

    registers: int
    local_bytes: int
    shared_bytes: int
    opcodes: Counter
    early_reads: list[str]
    ttgir: str
    ptx: str

    @property
    def has_hgmma(self) -> bool:
        """Whether Hopper's warpgroup matrix products are used."""
        return "HGMMA" in self.opcodes

    @property
    def has_hmma(self) -> bool:
        """Whether the slower matrix products of single warps are used."""
        return "HMMA" in self.opcodes


def compiled(
    *,
    module: str,
    kernel: str,
    signature: dict,
    constexprs: dict,
    num_warps: int = 4,
    num_stages: int = 3,
    **options: object,
) -> Binary:
    """Compile one Triton or Gluon kernel; the same orders are compiled once a session.

    Args:
        module, kernel: Where the jitted function is, as in ``module="ena_kernels.scans.triton"``.
        signature: Name to Triton type for each argument that is no constexpr: ``"*bf16"``,
            ``"i32"``, ``"fp32"``, ``"tensordesc<bf16[64, 64]>"`` (a Gluon kernel's gets the
            default layout), or a tuple of those. Pointers count as multiples of 16 bytes, integers
            only with the ending ``":16"``.
        constexprs: Name to value: numbers, strings, booleans, None and tuples; a string such as
            ``"tl.float32"`` is that dtype, and ``"a.b:name"`` is what module a.b calls name.
        options: Further options of ``triton.compile``, such as ``maxnreg``.
    Raises:
        AssertionError: the kernel does not compile; the text is what the compiler said.
    """
    launch = {"num_warps": num_warps, "num_stages": num_stages, **options}
    return _compiled(repr((module, kernel, signature, constexprs, launch)))


@cache
def _compiled(orders: str) -> Binary:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, __file__],
        input=orders,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    usage, sass, shared_bytes, ttgir, ptx = ast.literal_eval(done.stdout)
    found = {name: int(count) for name, count in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    instructions = re.findall(r"^\s*/\*\w+\*/\s+(?:@!?\w+\s+)?([A-Z]\w*)", sass, re.MULTILINE)
    assert "EXIT" in instructions, f"no machine code in\n{sass[:1000]}"
    return Binary(
        registers=found["REG"],
        local_bytes=max(found["STACK"], found["LOCAL"]),
        shared_bytes=shared_bytes,
        opcodes=Counter(instructions),
        early_reads=_early_reads(sass),
        ttgir=ttgir,
        ptx=ptx,
    )


def _early_reads(sass: str) -> list[str]:
    """Of four bytes none is told: masks are filled bit by bit, which needs no first value."""
    stack = r"^\s*/\*\w+\*/\s+((?:@!?\w+\s+)?(LDL|STL)([.\w]*) .*?\[R1(?:\+0x(\w+))?\].*?);"
    written, early = set(), []
    for text, kind, mode, place in re.findall(stack, sass, re.MULTILINE):
        width = next((size for mark, size in WIDTHS.items() if mark in mode), 4)
        first = int(place or "0", 16)
        cells = set(range(first, first + width))
        if kind == "STL":
            written |= cells
        elif width != 4 and not cells <= written:
            early.append(text)
    return early


def _main() -> None:
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget

    sys.path.insert(0, str(ROOT))
    module, kernel, signature, constexprs, options = ast.literal_eval(sys.stdin.read())
    function = getattr(import_module(module), kernel)
    source = _source(function, signature, {k: _value(v) for k, v in constexprs.items()})
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.check_output([knobs.nvidia.cuobjdump.path, dump, file.name], text=True)
            for dump in ("--dump-resource-usage", "--dump-sass")
        )
    report = usage, sass, binary.metadata.shared, binary.asm["ttgir"], binary.asm["ptx"]
    sys.stdout.write(repr(report))


def _source(function, signature: dict, constexprs: dict):
    from triton.compiler import ASTSource

    place = {name: i for i, name in enumerate(function.arg_names)}
    types = {name: _type(signature.get(name, "constexpr"), function) for name in place}
    attributes = {
        path: [["tt.divisibility", 16]]
        for name in signature
        for path in _aligned(signature[name], (place[name],))
    }
    values = {(place[name],): value for name, value in constexprs.items()}
    source = ASTSource
    if function.is_gluon():
        from triton.experimental.gluon._runtime import GluonASTSource

        source = GluonASTSource
    return source(fn=function, signature=types, constexprs=values, attrs=attributes)


def _type(kind, function):
    """A Triton type without the mark of a multiple of 16; Gluon's descriptors name a layout."""
    if isinstance(kind, tuple):
        return tuple(_type(part, function) for part in kind)
    box = re.fullmatch(r"tensordesc<(\w+)(\[[\d, ]+\])>", kind)
    if box is None or not function.is_gluon():
        return kind.removesuffix(":16")
    from triton.experimental.gluon import language as gl

    names = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    shape, dtype = ast.literal_eval(box[2]), getattr(gl, names[box[1]])
    layout = gl.NVMMASharedLayout.get_default_for(shape, dtype)
    return f"{kind.removesuffix('>')},{layout!r}>"


def _aligned(kind, path: tuple[int, ...]):
    """Paths of the arguments that are multiples of 16."""
    if isinstance(kind, tuple):
        for i, part in enumerate(kind):
            yield from _aligned(part, (*path, i))
    elif kind.startswith("*") or kind.endswith(":16"):
        yield path


def _value(value):
    """A constexpr from the text that stands for it."""
    if isinstance(value, str) and value.startswith("tl."):
        return getattr(import_module("triton.language"), value.removeprefix("tl."))
    if isinstance(value, str) and ":" in value:
        module, _, name = value.partition(":")
        return getattr(import_module(module), name)
    return value


if __name__ == "__main__":
    _main()
