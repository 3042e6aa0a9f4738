"""What the kernels may import, what they export, and what works without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ena_kernels

ROOT = Path(ena_kernels.__file__).parent
PUBLIC_NAMES = [
    "ShapeError",
    "UnsupportedError",
    "attention",
    "delta_rule",
    "delta_rule_step",
    "scan_merge",
    "scan_split",
    "sliding_tile",
]


def imported_packages(source):
    """Top-level names of everything a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module.partition(".")[0]


def run_in_a_fresh_process(code, *, without=()):
    """Run code where the modules `without` cannot be imported; return its output."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in without)
    command = [sys.executable, "-c", f"import sys\n{blocked}{code}"]
    done = subprocess.run(
        command, cwd=ROOT.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_kernels_import_nothing_of_the_benchmark(path):
    assert {"bench", "reports", "cli"}.isdisjoint(imported_packages(path.read_text()))


def test_imported_packages_sees_every_form_of_import():
    source = "import a.b as c\nfrom d.e import f\ndef g():\n    import h, i\n"
    assert list(imported_packages(source)) == ["a", "d", "h", "i"]


@pytest.mark.parametrize(
    "module",
    ["ena_kernels", "ena_kernels.canvas", "ena_kernels.errors", "ena_kernels.scans.catalog"],
)
def test_geometry_and_catalog_load_without_torch_and_numpy(module):
    run_in_a_fresh_process(f"import {module}", without=["torch", "numpy"])


def test_geometry_counts_without_numpy():
    code = (
        "from ena_kernels.canvas import attended_fraction, window_for_sparsity\n"
        "window = window_for_sparsity((64, 64), (8, 16), 0.7)\n"
        "print(window, attended_fraction((64, 64), (8, 16), window))"
    )
    output = run_in_a_fresh_process(code, without=["torch", "numpy"])
    assert output.split("\n")[0] == "(40, 32) 5/16"


def test_plain_pytorch_impls_run_without_triton_and_the_libraries():
    code = (
        "import torch\n"
        "from ena_kernels import attention, sliding_tile\n"
        "q = torch.ones(1, 2, 24, 4)\n"
        "for impl in ('reference', 'eager'):\n"
        "    attention(q, q, q, impl=impl)\n"
        "    sliding_tile(q, q, q, canvas=(4, 6), tile=(2, 3), window=(4, 3), impl=impl)\n"
        "print(torch.cuda.is_initialized())"
    )
    output = run_in_a_fresh_process(code, without=["triton", "flash_attn", "natten", "fla"])
    assert output == "False\n"


def test_public_names_are_exactly_these():
    assert sorted(ena_kernels.__all__) == PUBLIC_NAMES
    assert sorted(dir(ena_kernels)) == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_is_something_to_call(name):
    assert callable(getattr(ena_kernels, name))
    assert getattr(ena_kernels, name).__name__ == name


@pytest.mark.parametrize("name", ["attention", "delta_rule", "sliding_tile"])
def test_a_name_stays_the_function_after_its_subpackage_was_imported(name):
    code = (
        f"import ena_kernels.{name}.reference\n"
        f"from ena_kernels import {name}\n"
        f"import ena_kernels.{name}.api\n"
        f"print(callable({name}), callable(ena_kernels.{name}))"
    )
    assert run_in_a_fresh_process(code) == "True True\n"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'atention'"):
        _ = ena_kernels.atention


@pytest.mark.parametrize("package", ["sliding_tile", "delta_rule", "layers"])
def test_operators_import_without_the_compiler_which_takes_seconds(package):
    module = "ena_kernels.layers" if package == "layers" else f"ena_kernels.{package}.api"
    code = f"import {module}\nprint('torch._dynamo' in sys.modules)"
    assert run_in_a_fresh_process(code).strip() == "False"
