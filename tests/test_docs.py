"""What the pages say is so: the code and commands in them, the files and tests they name."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import cli
from bench import grid, measurement
from bench.axes import AXES
from bench.case import Case
from bench.contenders import registry
from bench.machine import facts
from bench.session import request
from bench.timing import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CONTENDERS = ROOT / "docs" / "contenders.md"


def blocks(page, language):
    """The fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.S)


def commands(page):
    """Arguments of every ena-bench command in the shell blocks of a page."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["ena-bench"]:
                yield words[1:]


def understood(name, arguments):
    """The options of a command as it would read them; nothing runs."""
    if name.startswith("-") or "--help" in arguments:
        return {}
    with cli.main.commands[name].make_context(name, list(arguments)) as context:
        return context.params


def absent(page):
    """Files, and tests in them, that a page names in code and that do not exist."""
    pattern = r"`((?:bench|ena_kernels|reports|tests|docs)/[\w/.-]+\.\w+)(?:::(\w+))?`"
    for path, test in re.findall(pattern, page.read_text("utf-8")):
        file = ROOT / path
        if not file.is_file() or (test and f"def {test}(" not in file.read_text("utf-8")):
            yield f"{path}::{test}".removesuffix("::")


def sections_named(source):
    """Sections of docs/maths.md that a docstring or comment sends its reader to."""
    text = re.sub(r"\s*\n\s*(?:# )?", " ", source)
    for sections in re.findall(r'docs/maths\.md, ((?:"[^"]+"(?: and | to )?)+)', text):
        yield from re.findall(r'"([^"]+)"', sections)


def dead_links(page):
    """Relative targets of the links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    return [t for t in targets if "://" not in t and not (page.parent / t).exists()]


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """The package of docs/contenders.md, installed as its page says."""
    (source,) = blocks(CONTENDERS, "python")
    (project,) = blocks(CONTENDERS, "toml")
    published = tomllib.loads(project)["project"]["entry-points"]["ena_bench.contenders"]
    ((name, value),) = published.items()
    module = value.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(source)
    info = tmp_path / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ena_bench.contenders]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    yield name
    sys.modules.pop(module, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_understood(page, third_party):
    for name, *arguments in commands(page):
        options = understood(name, arguments)
        if "preset" in options and options["grid_file"] is None:
            axes = {axis: options[axis] for axis in AXES}
            request(
                preset=options["preset"],
                grid_file=None,
                axes=axes,
                settings={},
                device=options["device"],
            )


@pytest.mark.parametrize(
    "line", ["run --no-such-option", "race", "report", "list planets", "run --rounds many"]
)
def test_a_command_that_does_not_exist_is_refused(line):
    name, *arguments = line.split()
    with pytest.raises((click.UsageError, KeyError)):
        understood(name, arguments)


def test_the_commands_of_a_page_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`ena-bench no`\n```sh\nmake bench\nena-bench run \\\n  --budget-s 2  # short\n```\n"
        "```text\nena-bench no\n```\n"
    )
    assert list(commands(page)) == [["run", "--budget-s", "2"]]
    assert list(commands(CONTENDERS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_test_that_a_page_names_exists(page):
    assert list(absent(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    assert dead_links(page) == []


def test_every_section_that_the_code_names_exists():
    folders = ("ena_kernels", "bench", "tests/bench", "tests/ena_kernels")
    sources = [p.read_text("utf-8") for folder in folders for p in (ROOT / folder).rglob("*.py")]
    named = {section for source in sources for section in sections_named(source)}
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "maths.md").read_text("utf-8"), re.M)
    assert {"Cost", "Choosing a window", "Sliding Tile Attention"} <= named <= {*headings}


def test_names_and_links_that_lead_nowhere_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`bench/case.py` `bench/none.py` `tests/test_docs.py::test_none` `1/2` "
        "[here](page.md#top) [gone](gone.md) [web](https://example.org/x)"
    )
    assert list(absent(page)) == ["bench/none.py", "tests/test_docs.py::test_none"]
    assert dead_links(page) == ["gone.md"]


def test_a_contender_written_as_its_page_says_is_measured(third_party):
    case = Case(
        level="layer",
        contender=third_party,
        impl="eager",
        mode="fwdbwd",
        canvas=(96,),
        heads=3,
        head_dim=5,
        depth=2,
    )
    assert ("layer", third_party, "eager") in registry()
    row = measurement.measure(
        case,
        Settings(warmup_s=0.0, budget_s=0.01, min_samples=3),
        machine=facts(),
        peaks=None,
        round=0,
        run_id="docs",
        say=lambda phase, values: None,
    )
    assert row.status == "ok"
    assert row.error_gradient is not None
    assert row.latency_ms > 0


@pytest.mark.slow
def test_a_contender_written_as_its_page_says_runs_from_the_command_line(third_party, tmp_path):
    command = [sys.executable, "-m", "cli", "run", "--contender", third_party]
    axes = ["--seq-len", "96", "--ndim", "1", "--mode", "fwd", "--device", "cpu"]
    quick = ["--warmup-s", "0.01", "--budget-s", "0.02", "--min-samples", "3"]
    done = subprocess.run(
        [*command, *axes, *quick, "--json", "-o", tmp_path / "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["contender"], row["status"]) for row in rows] == [(third_party, "ok")]


def test_the_grid_written_as_its_page_says_is_planned_with_nothing_unknown():
    (text,) = blocks(ROOT / "docs" / "grids.md", "toml")
    planned = grid.expand(grid.parse_grid(text, name="page"), device="cpu")
    assert {item.case.contender for item in planned} == {"ena", "transformer"}
    assert [item.reason for item in planned] == [None] * 12
    on_cuda = grid.expand(grid.parse_grid(text, name="page"), device="cuda")
    ops = [item.case for item in on_cuda if item.case.level == "op"]
    assert {(case.contender, case.window) for case in ops} == {("sliding_tile", (32, 32))}


def test_the_readme_uses_the_operators_as_a_library():
    (code,) = blocks(ROOT / "README.md", "python")
    names = {}
    exec(code, names)
    assert names["local"].shape == names["whole"].shape == (1, 4, 2048, 64)
    assert names["state"].shape == (1, 4, 64, 64)
    assert names["local"].isfinite().all()
    assert names["whole"].isfinite().all()
