"""What is promised of the sources as a whole, read from the sources themselves."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RANKS = {"ena_kernels": 0, "bench": 1, "reports": 2, "cli": 3}
GPU_LIBRARIES = {"triton", "fla", "flash_attn", "natten"}
HEAVY = {"torch", "pandas", "matplotlib", "pyarrow"}
DRAWERS = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "shared"}
# mathematics of one operator, shared by its implementations
ALLOWED_DRAWERS = {"ena_kernels/delta_rule/common.py"}
KERNELS = re.compile(r"_kernels?$|^addresses$|^gluon_names$")
MOST_LINES = 400
UNFINISHED = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b")
WITHOUT_TORCH = (
    "cli",
    "bench.case",
    "bench.grid",
    "bench.contenders",
    "bench.catalog",
    "ena_kernels",
    "ena_kernels.canvas",
    "ena_kernels.scans.catalog",
)


def files(*folders, pattern="*.py"):
    """Paths relative to the root, with slashes."""
    found = (path for folder in folders for path in (ROOT / folder).rglob(pattern))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


SOURCES = [*files("ena_kernels", "bench", "reports"), "cli.py"]
TESTS = files("tests")
PAGES = [*files("docs", pattern="*.md"), *files("bench/presets", pattern="*.toml")]


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def imports(source, *, only_when_loaded=False):
    """Top names of everything a source imports, also by `import_module` of a literal.

    Args:
        only_when_loaded: Leave out what waits inside functions or is for type checkers.
    """
    waiting = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        waits = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if only_when_loaded and (waits or is_typing):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name their module in full"
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            literals = (a.value for a in node.args if isinstance(a, ast.Constant))
            yield from (literal.partition(".")[0] for literal in literals)


def offences(paths, rule):
    """Path to what a rule finds in it, for the paths where it finds anything."""
    return {path: found for path in paths if (found := rule(path, text_of(path)))}


def upward_imports(path, source):
    """What a file imports from above its own place."""
    place = RANKS[path.partition("/")[0].removesuffix(".py")]
    return sorted({name for name in imports(source) if RANKS.get(name, place) > place})


def gpu_imports(path, source):
    """GPU libraries that loading a file loads, but the one an adapter is named after, and Triton
    in the kernels that an adapter loads."""
    own = {Path(path).stem} if path.startswith("ena_kernels/") else set()
    if own and KERNELS.search(Path(path).stem):
        own = {"triton"}
    return set(imports(source, only_when_loaded=True)) & GPU_LIBRARIES - own


def swallowed_errors(path, source):
    """Lines of handlers that catch everything and do nothing."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = "Exception" if node.type is None else ast.unparse(node.type)
        does_nothing = all(isinstance(step, ast.Pass) for step in node.body)
        if does_nothing and re.search(r"\b(Base)?Exception\b", caught):
            lines.append(node.lineno)
    return lines


def run_python(code):
    """Standard output of a fresh interpreter in the root."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_point_one_way():
    assert offences(SOURCES, upward_imports) == {}


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("ena_kernels/x.py", "from bench.case import Case", ["bench"]),
        ("ena_kernels/a/x.py", "def f():\n    import reports.plots, cli", ["cli", "reports"]),
        ("bench/x.py", "from importlib import import_module\nimport_module('cli')", ["cli"]),
        ("bench/x.py", "import bench.case, ena_kernels, torch", []),
        ("reports/x.py", "if TYPE_CHECKING:\n    from cli import main", ["cli"]),
        ("cli.py", "from reports import html", []),
    ],
)
def test_an_import_upward_is_found(path, source, found):
    assert upward_imports(path, source) == found


def test_gpu_libraries_load_in_functions_or_in_the_module_named_after_them():
    assert offences(SOURCES, gpu_imports) == {}


def test_an_import_that_waits_in_a_function_is_told_from_one_that_does_not():
    source = (
        "import torch\nif TYPE_CHECKING:\n    import fla\n"
        "try:\n    import triton\nexcept ImportError:\n    raise\n"
        "class A:\n    import natten\n    def f(self):\n        import flash_attn\n"
    )
    assert gpu_imports("bench/x.py", source) == {"triton", "natten"}
    assert gpu_imports("ena_kernels/scans/triton.py", source) == {"natten"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run", "--help"], ["profile", "--help"]])
def test_the_command_line_starts_without_heavy_libraries(arguments):
    code = f"""
import sys
from click.testing import CliRunner
import cli
if {arguments}:
    assert CliRunner().invoke(cli.main, {arguments}).exit_code == 0
print(*({HEAVY} & sys.modules.keys()))
"""
    assert run_python(code).split() == []


def test_the_pure_modules_import_where_torch_is_not_installed():
    lines = ["import sys; sys.modules['torch'] = None", *(f"import {m}" for m in WITHOUT_TORCH)]
    assert run_python("\n".join([*lines, "print('all')"])) == "all\n"


def test_no_file_is_a_drawer_for_odds_and_ends():
    def drawers(path, _):
        return {part.removeprefix("test_").removesuffix(".py") for part in Path(path).parts} & (
            DRAWERS
        )

    assert offences([*SOURCES, *TESTS], drawers).keys() == ALLOWED_DRAWERS


def test_modules_are_short():
    def num_lines_too_many(_, source):
        return max(0, source.count("\n") - MOST_LINES)

    assert offences(SOURCES, num_lines_too_many) == {}


def test_modules_say_what_they_are():
    def is_silent(_, source):
        return ast.get_docstring(ast.parse(source)) is None

    assert offences(SOURCES, is_silent) == {}


def test_nothing_is_left_to_do():
    assert offences([*SOURCES, *TESTS, *PAGES], lambda _, text: UNFINISHED.findall(text)) == {}


def test_no_error_is_swallowed():
    assert offences([*SOURCES, *TESTS], swallowed_errors) == {}


@pytest.mark.parametrize(
    ("handler", "lines"),
    [
        ("except:\n    pass", [3]),
        ("except Exception:\n    pass", [3]),
        ("except (KeyError, BaseException) as err:\n    pass", [3]),
        ("except KeyError:\n    pass", []),
        ("except Exception:\n    raise", []),
    ],
)
def test_a_swallowed_error_is_found(handler, lines):
    assert swallowed_errors("x.py", f"try:\n    work()\n{handler}\n") == lines
